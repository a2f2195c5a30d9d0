"""Everything that is said to a machine goes through here, whatever the provider.

Fabric sets the connection up; commands, streams and forwards then use its paramiko transport directly, because
`fabric.Connection.run` joins its whole buffer for every piece (a minute for 20 MB) and waits for a frozen peer without
end. Exceptions of either library stop at this border. Neither is imported before the first `connect`.
"""

from .connection import CommandFailed, Connection, Output
from .keys import new_key
from .login import connect, shown_host_key

__all__ = ["CommandFailed", "Connection", "Output", "connect", "new_key", "shown_host_key"]
