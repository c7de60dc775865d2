"""The fusion network of K members and its parts. Knows no study and no files."""
