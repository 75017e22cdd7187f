"""Addresses that a server of this machine listens on."""

import errno
import ipaddress

from deepmlf.errors import SearchError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal_of_address(error: Exception, host: str, port: int) -> SearchError:
    """What to tell of an address that cannot be listened on."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return SearchError(f"port {port} is in use; choose another by --port, or --port 0 for a free one")
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SearchError(f"--host {host} --port {port}: cannot be listened on ({why})")
