"""autoctr: finds, proves and exports one click-through-rate model for many domains."""
