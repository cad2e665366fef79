"""A report as one HTML page that opens anywhere: no other file, no request."""
