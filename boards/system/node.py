"""A node's HTTP API as a program outside uses it."""

import http.client
import json
import socket
import time

from .say import Failure, wait

TOKEN = "system-test-token"


class Api:
    """At an address; each call is a connection of its own, since boards come and go."""

    def __init__(self, address):
        self.address = address

    def ask(self, method, path, body=None, patience=60):
        """The status and the body of the answer."""
        status, _, answer = self.whole(method, path, body, patience)
        return status, answer

    def whole(self, method, path, body=None, patience=60):
        """The same, and the headers between them."""
        connection = http.client.HTTPConnection(self.address, timeout=patience)
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1:5080"}
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, path):
        status, body = self.ask("GET", path)
        if status not in (200, 503):
            raise Failure(f"GET {path}: {status} {body[:300]!r}")
        return json.loads(body)

    def try_json(self, path):
        try:
            return self.json(path)
        except (OSError, http.client.HTTPException, Failure, ValueError):
            return None

    def until_it_serves(self, patience, still=lambda: None):
        def serves():
            still()
            try:
                return self.ask("GET", "/livez", patience=10)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        began = time.monotonic()
        wait(f"the node at {self.address} serves", patience, serves)
        return time.monotonic() - began


# What a caller whose board loses its power sees, in its several forms.
GONE = (OSError, http.client.HTTPException, socket.timeout)
