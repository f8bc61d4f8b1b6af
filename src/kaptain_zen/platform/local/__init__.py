"""The laptop as a platform: real processes and servers, no cluster, no container engine."""
