"""The quickstart's worlds: scenes for a critic, captions for late fusion, the loop's data."""
