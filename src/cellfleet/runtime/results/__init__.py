"""What a run writes: masks, contours, overlays, rows, tables, and where they come from."""
