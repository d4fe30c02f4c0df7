"""The docker judge: every zygote in a hardened container of its own, tests and graders outside.

For any engine that speaks Docker's API on this machine, podman included. A container lives as long as its
worker; programs are forked inside it, since a container each would cost most of a second.
"""

import logging
import os
import select
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from codegym.errors import SandboxError
from codegym.judge.container import container_options, listen
from codegym.judge.jail import Limits
from codegym.judge.pool import LocalJudge
from codegym.judge.protocol import PACKAGE
from codegym.judge.scratch import make_folder
from codegym.judge.worker import Worker

DEFAULT_IMAGE = "python:3.12-slim"
_LOOK_S = 1.0
_GRACE_S = 5.0
_CONFLICT = 409
_ENGINE_ERRORS = (DockerException, RequestException)

_log = logging.getLogger(__name__)


class Engine:
    """A Docker engine. Connects anew each time: connections survive neither forks nor other threads."""

    def __init__(self, base_url: str | None) -> None:
        """Refer to an engine.

        Args:
            base_url: Its socket, such as `unix:///run/docker.sock`; what the environment says if None.
        """
        self._base_url = base_url

    @contextmanager
    def _client(self, purpose: str) -> Iterator[Any]:
        where = self._base_url or os.environ.get("DOCKER_HOST") or "the default address"
        try:
            client = docker.DockerClient(self._base_url) if self._base_url else docker.from_env()
        except _ENGINE_ERRORS as error:
            raise SandboxError(f"no Docker engine answers at {where}: {error}") from error
        try:
            yield client
        except _ENGINE_ERRORS as error:
            raise SandboxError(f"the Docker engine at {where} cannot {purpose}: {error}") from error
        finally:
            client.close()

    def provide(self, image: str) -> None:
        """Pull an image unless it is there.

        Raises:
            SandboxError: If there is no engine or no such image.
        """
        with self._client(f"provide the image {image!r}") as client:
            try:
                client.images.get(image)
            except ImageNotFound:
                _log.info("pulling the image %s", image)
                client.images.pull(image)

    def start(self, options: dict[str, Any]) -> str:
        """Start a container and return its identity.

        Raises:
            SandboxError: If the engine refuses.
        """
        with self._client("start a container") as client:
            container = client.containers.create(**options)
            try:
                _check_runtime(options["runtime"], container.attrs["HostConfig"]["Runtime"])
                container.start()
            except BaseException:
                _remove(client, container.id)
                raise
            identity: str = container.id
            return identity

    def runs(self, identity: str) -> bool:
        """Whether a container still runs.

        Raises:
            SandboxError: If the engine does not answer.
        """
        with self._client("inspect a container") as client:
            try:
                return bool(client.containers.get(identity).status != "exited")
            except NotFound:
                return False

    def remove(self, identity: str) -> None:
        """Remove a container and whatever runs in it.

        Raises:
            SandboxError: If the engine does not answer.
        """
        with self._client("remove a container") as client:
            _remove(client, identity)


def _remove(client: Any, identity: str) -> None:
    try:
        client.api.remove_container(identity, force=True)
    except APIError as error:
        # It ended by itself, and is removed already or just now.
        if not isinstance(error, NotFound) and error.status_code != _CONFLICT:
            raise


def _check_runtime(wanted: str | None, found: str) -> None:
    """Podman takes any name without a word, and runs what its own configuration says."""
    if wanted is not None and found != wanted:
        raise SandboxError(f"the Docker engine runs containers with {found!r}, not with {wanted!r} as asked")


class ContainerWorker(Worker):
    """A grader on this side, its zygote in a container."""

    def __init__(self, limits: Limits, max_tier: int, *, engine: Engine, image: str, runtime: str | None):
        """Start both without waiting for them."""
        scratch = make_folder()
        meeting, listener = listen(scratch)
        # The grader's copy of the listener is then the only one: without a grader, nobody answers.
        with listener:
            super().__init__(limits, max_tier, scratch=scratch, listener=listener)
        self._engine = engine
        self._image = image
        options = container_options(limits, image=image, runtime=runtime, meeting=meeting)
        executor = ThreadPoolExecutor(max_workers=1)
        self._container = executor.submit(engine.start, options)
        executor.shutdown(wait=False)

    def wait_started(self) -> None:
        """Wait until the zygote is up and its tier known.

        Raises:
            WorkerDiedError: If it does not come up.
            SandboxError: If there is no container for it.
        """
        container = self._container.result()
        while not self._speaks(_LOOK_S):
            # If it did call in and then ended, the grader is about to say why.
            if not self._engine.runs(container) and not self._speaks(_GRACE_S):
                raise SandboxError(
                    f"the container ended before it called in: the image {self._image!r} must have a "
                    f"`python3` of at least 3.11 in its path, {PACKAGE} be readable to any user, and the "
                    "engine run on this machine"
                )
        super().wait_started()

    def _speaks(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """End the container and the grader."""
        # Not before it has started: podman would make the folders to be mounted anew.
        if self._container.exception() is None:
            try:
                self._engine.remove(self._container.result())
            except SandboxError as error:
                # Not the error itself: log records are kept, and would keep its open sockets.
                _log.warning("a container is left to end by itself: %s", str(error))
        super().close()


class DockerJudge(LocalJudge):
    """Judges programs in hardened containers: no network, nothing to write to, no privileges, no root.

    The confinement of programs inside the container is the local judge's, as far as the engine lets it; most
    engines allow tier 1. Time, memory and verdicts are the local judge's too.
    """

    def __init__(
        self,
        *,
        image: str = DEFAULT_IMAGE,
        runtime: str | None = None,
        base_url: str | None = None,
        **options: Any,
    ) -> None:
        """Prepare a judge; pull the image if it is not there.

        Args:
            image: Any image with a `python3` of at least 3.11 in its path.
            runtime: What runs containers, such as `runsc` for gVisor; the engine's default if None.
            base_url: The engine's socket; by default what DOCKER_HOST says.
            options: As of `LocalJudge`.

        Raises:
            ValueError: If an option is out of range.
            SandboxError: If there is no engine, no such image, or less isolation than `min_tier`.
        """
        self._engine = Engine(base_url)
        self._engine.provide(image)
        self._image = image
        self._runtime = runtime
        super().__init__(**options)

    def _worker_starter(self) -> Callable[[], Worker]:
        return partial(
            ContainerWorker,
            self._limits,
            self._max_tier,
            engine=self._engine,
            image=self._image,
            runtime=self._runtime,
        )
