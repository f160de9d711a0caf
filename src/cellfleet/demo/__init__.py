"""The demo: from images to a bundle, and from the bundle to three instruments and back, with the commands that users type."""
