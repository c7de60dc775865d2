"""Tables in, encoded arrays out. Knows no network."""
