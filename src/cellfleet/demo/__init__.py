"""From images to a bundle, and from the bundle to three instruments and back, through the commands that users type."""
