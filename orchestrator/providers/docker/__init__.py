"""The provider `docker`: a container on this computer stands in for the VM. For tests, CI and rehearsals."""

from .provider import DockerProvider

__all__ = ["DockerProvider"]
