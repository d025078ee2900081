"""From files to records, and from records to ids, vectors and values."""
