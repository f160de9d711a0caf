"""Images in: readers, frames with named channels, pixel sizes."""
