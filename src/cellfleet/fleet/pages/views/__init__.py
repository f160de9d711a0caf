"""One module per page: a request in, a rendered page out."""
