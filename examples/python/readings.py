#!/usr/bin/env python3
"""A program on the gateway that keeps its readings in CBDDC, with nothing but the standard library.

    python3 readings.py [http://127.0.0.1:5080]

It writes readings, counts them in a document that others may change too, loads many at once, reads them back page by
page, and follows what changes, also what changes on other devices. CBDDC_TOKEN holds the token where the node asks for one.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


class Failed(Exception):
    """An error of the node. Programs match on `code` and `kind`; `detail` is for people."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']} {problem.get('kind', '')}: {problem['detail']}")
        self.status, self.code, self.kind = problem["status"], problem["code"], problem.get("kind")


class Node:
    def __init__(self, address, token=None):
        self.address, self.token = address.rstrip("/"), token

    def ask(self, method, path, body=None, headers=None, timeout=40):
        """One request; again where the node says that nothing was begun (429, 503) or that repeating is safe (504)."""
        headers = dict(headers or {})
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in range(1, 6):
            request = urllib.request.Request(self.address + path, data=body, headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                text = error.read()
                if error.code in (429, 503, 504) and attempt < 5:
                    time.sleep(float(error.headers.get("Retry-After", attempt)))
                    continue
                if not error.headers.get_content_type().endswith("json"):
                    raise
                raise Failed(json.loads(text)) from None

    @staticmethod
    def path(collection, key=None):
        """Everything in a key is allowed, a / too, as long as it is percent-encoded."""
        path = f"/v1/collections/{urllib.parse.quote(collection, safe='')}/documents"
        return path if key is None else f"{path}/{urllib.parse.quote(key, safe='')}"

    def put(self, collection, key, value, **headers):
        """True once it is on disk; False where it waits in the offline queue, and would not survive a power cut."""
        status, _, _ = self.ask("PUT", self.path(collection, key), json.dumps(value).encode(), headers)
        return status != 202

    def get(self, collection, key):
        """The document and its version; None and None where there is none."""
        try:
            _, headers, body = self.ask("GET", self.path(collection, key))
        except Failed as failed:
            if failed.kind == "DocumentNotFound":
                return None, None
            raise
        return json.loads(body), headers["ETag"]

    def change(self, collection, key, how):
        """Reads, changes and writes, again where somebody else on this device was faster. Between devices the last write
        wins: what two of them must both count is better kept in one document for each."""
        while True:
            value, version = self.get(collection, key)
            condition = {"If-Match": version} if version else {"If-None-Match": "*"}
            try:
                return self.put(collection, key, how(value), **condition)
            except Failed as failed:
                if failed.kind != "Concurrency":
                    raise

    def load(self, collection, documents):
        """Many at once. Answers how many were stored, and which lines were not and why."""
        lines = "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in documents)
        _, _, body = self.ask("POST", self.path(collection), lines.encode(), {"Content-Type": "application/x-ndjson"})
        outcome = json.loads(body)
        return outcome["successful"], outcome["errors"]

    def list(self, collection, prefix=""):
        """All documents whose keys begin so, in the order of their keys, a page at a time."""
        after = ""
        while after is not None:
            query = urllib.parse.urlencode({"prefix": prefix, "after": after, "limit": 500})
            _, _, body = self.ask("GET", f"{self.path(collection)}?{query}")
            page = json.loads(body)
            yield from ((document["key"], document["value"]) for document in page["documents"])
            after = page["next"]

    def changes(self, since, collection, timeout="30s"):
        """The next changes and the token to go on with. A token that is refused means: begin again with nothing."""
        query = urllib.parse.urlencode({"since": since, "collection": collection, "timeout": timeout})
        _, _, body = self.ask("GET", f"/v1/changes?{query}")
        page = json.loads(body)
        return page["changes"], page["next"]


def main():
    node = Node(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5080", os.environ.get("CBDDC_TOKEN"))
    # From here on: kept in a file, the token would let the next run of this program go on.
    _, token = node.changes("now", "readings", "0s")

    print("on disk" if node.put("readings", "2026/01/15 10:20", {"celsius": 21.5}) else "queued")
    stored, errors = node.load("readings", ((f"2026/01/15 {hour:02}:00", {"celsius": hour / 2}) for hour in range(24)))
    print(f"{stored} stored, {len(errors)} not")
    node.change("counters", "readings", lambda count: (count or 0) + 25)

    reading, _ = node.get("readings", "2026/01/15 10:20")
    print(f"at 10:20 it was {reading['celsius']} degrees")
    warmest = max(node.list("readings", "2026/01/15"), key=lambda document: document[1]["celsius"])
    print(f"the warmest was {warmest[0]}")
    try:
        node.put("readings", "2026/01/15 10:20", {}, **{"If-None-Match": "*"})
    except Failed as failed:
        print(f"not again: {failed.kind}")

    seen = {}
    while len(seen) < 25:
        changes, token = node.changes(token, "readings")
        for change in changes:
            seen[change["key"]] = None if change.get("deleted") else change["value"]
    print(f"{len(seen)} changes seen")


if __name__ == "__main__":
    main()
