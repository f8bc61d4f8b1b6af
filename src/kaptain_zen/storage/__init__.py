"""Objects under URIs: `file://` and `s3://`, in the same layout."""
