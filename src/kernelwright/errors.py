"""The error tree: everything that can go wrong on *our* side.

A candidate that fails is not an error, it is a value (`model.Rejected`).

    KernelwrightError
    ├── UserError              the user can mend it; printed as one sentence, exit code 2
    │   ├── ProblemError       a problem file or declaration is not usable
    │   ├── CandidateError     a kernel file given by the user cannot be read or declared
    │   ├── MachineError       this machine lacks something that the request needs
    │   ├── ArchiveError       a run folder cannot be opened or does not fit the request
    │   └── ModelError         a language model cannot be used: its key, its name, its server
    ├── ModelCallError         one request to a language model got no reply
    │   └── LimitReached       it was not sent, because it might break a limit on spending
    ├── Unsupported            a reference is outside the expression form (callers fall back)
    └── HarnessError           our own machinery failed (a role process died, a protocol broke)
"""


class KernelwrightError(Exception):
    """Root of all errors that this project raises on purpose."""


class UserError(KernelwrightError):
    """The user can mend this; the message is one clear sentence naming the thing and the mend."""


class ProblemError(UserError):
    """A problem (declaration, file, sizes, dtype) is not usable as given."""


class UndeclaredDtype(ProblemError):
    """A problem is asked for in a dtype that it does not declare."""


class CandidateError(UserError):
    """A kernel that the user handed over cannot be read, or declares its tunables wrongly."""


class MachineError(UserError):
    """This machine lacks something that the request needs, such as a C++ compiler."""


class ArchiveError(UserError):
    """A run folder cannot be opened, is of a newer schema, or belongs to another request."""


class ModelError(UserError):
    """A language model cannot be used: no key, no such name, a server that cannot be reached."""


class ModelCallError(KernelwrightError):
    """One request to a language model got no reply, all attempts included; says why."""


class LimitReached(ModelCallError):
    """A request was not sent: with it, a limit on money, tokens or time might be broken."""


class Unsupported(KernelwrightError):
    """A reference cannot be brought into the expression form; says which operation and why."""


class HarnessError(KernelwrightError):
    """Our own machinery failed: a role process died or a protocol was broken by us."""
