"""What the quickstart found: tables, pages, and the images that README shows."""
