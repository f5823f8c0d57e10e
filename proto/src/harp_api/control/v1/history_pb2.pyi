from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventsRequest(_message.Message):
    __slots__ = ("follow", "subject", "tenant", "after")
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    follow: bool
    subject: str
    tenant: str
    after: int
    def __init__(self, follow: _Optional[bool] = ..., subject: _Optional[str] = ..., tenant: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "time", "about", "subject", "name", "what", "reason", "tenant")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: float
    about: str
    subject: str
    name: str
    what: str
    reason: str
    tenant: str
    def __init__(self, number: _Optional[int] = ..., time: _Optional[float] = ..., about: _Optional[str] = ..., subject: _Optional[str] = ..., name: _Optional[str] = ..., what: _Optional[str] = ..., reason: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("after", "caller", "subject", "tenant")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    after: int
    caller: str
    subject: str
    tenant: str
    def __init__(self, after: _Optional[int] = ..., caller: _Optional[str] = ..., subject: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class AuditRow(_message.Message):
    __slots__ = ("sequence", "time", "caller", "verb", "subject", "tenant", "request", "outcome", "before", "after", "hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: float
    caller: str
    verb: str
    subject: str
    tenant: str
    request: str
    outcome: str
    before: str
    after: str
    hash: str
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[float] = ..., caller: _Optional[str] = ..., verb: _Optional[str] = ..., subject: _Optional[str] = ..., tenant: _Optional[str] = ..., request: _Optional[str] = ..., outcome: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditState(_message.Message):
    __slots__ = ("rows", "broken", "cause")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    broken: int
    cause: str
    def __init__(self, rows: _Optional[int] = ..., broken: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...

class UsageRequest(_message.Message):
    __slots__ = ("tenant", "since")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    since: float
    def __init__(self, tenant: _Optional[str] = ..., since: _Optional[float] = ...) -> None: ...

class UsageReport(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _containers.RepeatedCompositeFieldContainer[Usage]
    def __init__(self, usage: _Optional[_Iterable[_Union[Usage, _Mapping]]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("tenant", "device_seconds", "compute_seconds", "byte_seconds")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    device_seconds: float
    compute_seconds: float
    byte_seconds: float
    def __init__(self, tenant: _Optional[str] = ..., device_seconds: _Optional[float] = ..., compute_seconds: _Optional[float] = ..., byte_seconds: _Optional[float] = ...) -> None: ...
