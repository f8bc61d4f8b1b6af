"""Ask an API server: the little that starting and preparing a cluster needs."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from devcluster.errors import ApiError
from devcluster.kubeconfig import Access
from devcluster.tls import client_context

USER_AGENT = "devcluster"
_JSON = "application/json"


class Api:
    """An API server as one user sees it. Every request has a connection of its own."""

    def __init__(self, access: Access) -> None:
        self.access = access
        parts = urlsplit(access.server)
        self._address = (parts.hostname or "", parts.port or 443)
        self._prefix = parts.path.rstrip("/")
        self._context = client_context(access.authority, access.pair)

    def request(self, method: str, path: str, body: object = None, *, seconds: float = 10.0) -> Any:
        """Send a request.

        Args:
            method: Such as GET.
            path: From `/` on, with the query.
            body: What is sent as JSON.
            seconds: How long to wait for the server.

        Returns:
            The answer: of JSON what it holds, else its text.

        Raises:
            ApiError: The server says no.
            OSError: The server cannot be reached, or broke off.
        """
        host, port = self._address
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=self._context)
        headers = {"Accept": f"{_JSON}, */*", "User-Agent": USER_AGENT}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = _JSON
        try:
            connection.request(method, self._prefix + path, data, headers)
            response = connection.getresponse()
            content = response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the server broke off: {error!r}") from error
        finally:
            connection.close()
        is_json = (response.getheader("Content-Type") or "").startswith(_JSON)
        answer: Any = json.loads(content) if is_json else content
        if response.status >= http.client.BAD_REQUEST:
            raise ApiError(response.status, answer["message"] if is_json else content.strip())
        return answer
