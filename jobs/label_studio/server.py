"""A Label Studio server, by its API."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from jobs.label_studio.screen import as_tree, label_config
from schemas.errors import SettingsError
from schemas.taxonomy import Taxonomy

__all__ = ["API_KEY", "LabelStudio", "Project"]

API_KEY = "LABEL_STUDIO_API_KEY"
"""The environment variable with a user's access token; a flag would show it to other users."""

_TIMEOUT_S = (10, 300)
_TASKS_A_REQUEST = 500


class LabelStudio:
    """A server, as the user whose token is in the environment.

    Raises, in all methods:
        SettingsError: The server cannot be reached, or refuses; names the address and why.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = requests.Session()
        # Of a request that adds something the answer may be lost: those are not repeated.
        retry = Retry(3, backoff_factor=0.5, status_forcelist=[502, 503, 504])
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(max_retries=retry))

    @classmethod
    def connect(cls, url: str) -> Self:
        """Log in."""
        server = cls(url)
        token = os.environ.get(API_KEY, "")
        if not token:
            raise SettingsError(f"--label-studio {url}: set {API_KEY} to a user's access token")
        if token.count(".") == 2:  # A personal access token, with which to ask for a short one.
            access = server.request("POST", "/api/token/refresh", json={"refresh": token})["access"]
            server._http.headers["Authorization"] = f"Bearer {access}"
        else:
            server._http.headers["Authorization"] = f"Token {token}"
        return server

    def project(self, title: str) -> "Project | None":
        """The project with a title, the oldest if there are several."""
        query = {"title": title, "page_size": 1000, "ordering": "id"}
        found = self.request("GET", "/api/projects", params=query)["results"]
        ids = [project["id"] for project in found if project["title"] == title]
        return Project(self, min(ids)) if ids else None

    def create_project(self, title: str, overlap: int) -> "Project":
        """Create a project that shows each listing to `overlap` people."""
        about = {"title": title, "maximum_annotations": overlap, "show_skip_button": True}
        return Project(self, self.request("POST", "/api/projects", json=about)["id"])

    def reviewers(self) -> dict[int, str]:
        """E-mail addresses of the users, by id."""
        return {user["id"]: user["email"] for user in self.request("GET", "/api/users/")}

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; returns the parsed answer."""
        try:
            answer = self._http.request(method, self.url + path, timeout=_TIMEOUT_S, **options)
            if answer.ok:
                return answer.json()
            said = f"{answer.status_code} {answer.reason}, {answer.text[:200]}"
        except (requests.RequestException, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
        raise SettingsError(f"--label-studio {self.url}: {method} {path}: {said}")


class Project:
    """A project of a server.

    Attributes:
        id: Its number.
        page: Where people decide its listings, one after the other.
    """

    def __init__(self, server: LabelStudio, project_id: int) -> None:
        self.page = f"{server.url}/projects/{project_id}/data?labeling=1"
        self._server = server
        self.id = project_id
        self._path = f"/api/projects/{project_id}"

    def show(self, taxonomy: Taxonomy) -> None:
        """Set the layout; the tree for it is uploaded unless it is there."""
        name = f"taxonomy-{taxonomy.digest[:12]}.json"
        before = self._server.request("GET", self._path)["label_config"]
        known = re.search(rf'apiUrl="([^"]*{name})"', before)
        url = known[1] if known else self._upload_tree(taxonomy, name)
        layout = {"label_config": label_config(taxonomy, url)}
        self._server.request("PATCH", self._path, json=layout)

    def _upload_tree(self, taxonomy: Taxonomy, name: str) -> str:
        """Upload a file and import nothing of it: the server gives it to whoever is logged in."""
        tree = json.dumps(as_tree(taxonomy), separators=(",", ":"))
        uploaded = self._server.request(
            "POST",
            f"{self._path}/import",
            params={"commit_to_project": "false"},
            files={name: (name, tree, "application/json")},
        )
        file = uploaded["file_upload_ids"][0]
        path = self._server.request("GET", f"/api/import/file-upload/{file}")["file"]
        return f"{self._server.url}/data/{path}"

    def serve_folder(self, folder: Path) -> None:
        """Let the server show photos of a folder on its machine."""
        storages = "/api/storages/localfiles"
        known = self._server.request("GET", storages, params={"project": self.id})
        if str(folder) not in {storage["path"] for storage in known}:
            about = {"project": self.id, "path": str(folder), "use_blob_urls": False}
            self._server.request("POST", storages, json=about)

    def tasks(self, *, all_of_them: bool) -> list[dict[str, Any]]:
        """The tasks with their annotations, in the format JSON; those with some, or all."""
        query = {"exportType": "JSON", "download_all_tasks": str(all_of_them).lower()}
        found: list[dict[str, Any]] = self._server.request(
            "GET", f"{self._path}/export", params=query
        )
        return found

    def add_tasks(self, tasks: Sequence[dict[str, Any]]) -> int:
        """Add the tasks whose listing was not sent for the same question before; returns how many.

        So a listing is sent once, even if the answer to an earlier request was lost.
        """

        def question(task: dict[str, Any]) -> tuple[Any, ...]:
            return tuple(task["data"].get(name) for name in ("listing_id", "task"))

        known = set(map(question, self.tasks(all_of_them=True)))
        fresh = [task for task in tasks if question(task) not in known]
        for start in range(0, len(fresh), _TASKS_A_REQUEST):
            some = fresh[start : start + _TASKS_A_REQUEST]
            self._server.request("POST", f"{self._path}/import", json=some)
        return len(fresh)
