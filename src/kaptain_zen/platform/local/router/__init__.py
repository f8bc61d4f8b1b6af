"""The router: one small process per service that keeps the service's address for ever.

    client ──► client_side ──► routes (which revision?) ──► upstream ──► MLServer of that revision
                   │
                   └─► admin: status, change of routes, waiting for a revision's last request

It is a process of its own (`python -m kaptain_zen.platform.local.router`), imports next to nothing,
and is told what to do over HTTP under a reserved path of its own port, with a token that only the
owner of the service's folder can read.
"""
