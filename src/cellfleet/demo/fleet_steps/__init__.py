"""From a bundle to three instruments and back, through the commands that users type."""
