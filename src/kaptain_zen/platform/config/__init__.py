"""Where credentials and certificates come from. Values never appear in a repr, log or exception."""
