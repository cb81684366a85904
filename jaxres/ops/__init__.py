"""Array operations with lowerings picked from measurements."""
