"""The stack components behind the flavors; thin, they turn configuration into adapters."""
