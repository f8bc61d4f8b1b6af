"""A real Kubernetes for the tests of this repository, from packages: no Docker, nothing pulled.

`python -m devcluster up` builds the control plane from the pinned Go modules below `go/`, starts it
on loopback and keeps all that it writes in one folder; `down` removes it. See docs/devcluster.md.

The modules from the ground up: `paths`, `errors`, `ports`, `locks`, `processes`, `progress`; `tls`,
`kubeconfig`, `api`; `golang`, `state`; `component` says what a part of a cluster is, `components`
holds the parts, `sizes` lists them, `cluster` starts and stops them; `status`, `doctor` and `cli`
are what a person sees. Beside them stands what tests use on a running cluster: `access` (roles),
`audit`, and `proxy`, which does wrong on purpose what `faults` describes (`relay` and `http1` carry
the traffic).
"""
