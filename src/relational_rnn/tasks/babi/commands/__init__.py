"""Commands of bAbI."""
