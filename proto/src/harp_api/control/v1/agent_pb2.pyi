from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromAgent(_message.Message):
    __slots__ = ("register", "report")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    register: Register
    report: Report
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("orders", "heard", "revoked", "record")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    orders: Orders
    heard: Heard
    revoked: Revoked
    record: Record
    def __init__(self, orders: _Optional[_Union[Orders, _Mapping]] = ..., heard: _Optional[_Union[Heard, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., record: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("session", "payload")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    session: str
    payload: str
    def __init__(self, session: _Optional[str] = ..., payload: _Optional[str] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("version", "address", "labels", "devices", "report")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    version: str
    address: str
    labels: _containers.ScalarMap[str, str]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    report: Report
    def __init__(self, version: _Optional[str] = ..., address: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("ordinal", "kind", "model", "memory", "labels", "fault")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    kind: str
    model: str
    memory: int
    labels: _containers.ScalarMap[str, str]
    fault: str
    def __init__(self, ordinal: _Optional[int] = ..., kind: _Optional[str] = ..., model: _Optional[str] = ..., memory: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., fault: _Optional[str] = ...) -> None: ...

class Orders(_message.Message):
    __slots__ = ("term", "revision", "leases", "grace_ms")
    TERM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    term: int
    revision: int
    leases: _containers.RepeatedCompositeFieldContainer[Order]
    grace_ms: int
    def __init__(self, term: _Optional[int] = ..., revision: _Optional[int] = ..., leases: _Optional[_Iterable[_Union[Order, _Mapping]]] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("lease", "epoch", "parts", "owners", "closed", "sessions_most")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_MOST_FIELD_NUMBER: _ClassVar[int]
    lease: str
    epoch: int
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    owners: _containers.RepeatedScalarFieldContainer[str]
    closed: bool
    sessions_most: int
    def __init__(self, lease: _Optional[str] = ..., epoch: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., owners: _Optional[_Iterable[str]] = ..., closed: _Optional[bool] = ..., sessions_most: _Optional[int] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("ordinal", "memory", "compute")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    memory: int
    compute: int
    def __init__(self, ordinal: _Optional[int] = ..., memory: _Optional[int] = ..., compute: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("number", "term", "revision", "leases", "faults", "incidents")
    class FaultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    class IncidentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Incident
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Incident, _Mapping]] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    INCIDENTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    term: int
    revision: int
    leases: _containers.RepeatedCompositeFieldContainer[Held]
    faults: _containers.ScalarMap[int, str]
    incidents: _containers.MessageMap[int, Incident]
    def __init__(self, number: _Optional[int] = ..., term: _Optional[int] = ..., revision: _Optional[int] = ..., leases: _Optional[_Iterable[_Union[Held, _Mapping]]] = ..., faults: _Optional[_Mapping[int, str]] = ..., incidents: _Optional[_Mapping[int, Incident]] = ...) -> None: ...

class Incident(_message.Message):
    __slots__ = ("number", "cause")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    number: int
    cause: str
    def __init__(self, number: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("lease", "epoch", "state", "sessions", "running")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Held.State]
        STATE_WAITING: _ClassVar[Held.State]
        STATE_ADMITTED: _ClassVar[Held.State]
        STATE_ENDING: _ClassVar[Held.State]
        STATE_REFUSED: _ClassVar[Held.State]
    STATE_UNSPECIFIED: Held.State
    STATE_WAITING: Held.State
    STATE_ADMITTED: Held.State
    STATE_ENDING: Held.State
    STATE_REFUSED: Held.State
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    lease: str
    epoch: int
    state: Held.State
    sessions: int
    running: _containers.RepeatedCompositeFieldContainer[Running]
    def __init__(self, lease: _Optional[str] = ..., epoch: _Optional[int] = ..., state: _Optional[_Union[Held.State, str]] = ..., sessions: _Optional[int] = ..., running: _Optional[_Iterable[_Union[Running, _Mapping]]] = ...) -> None: ...

class Running(_message.Message):
    __slots__ = ("session", "user", "program", "pid", "began")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    session: str
    user: str
    program: str
    pid: int
    began: float
    def __init__(self, session: _Optional[str] = ..., user: _Optional[str] = ..., program: _Optional[str] = ..., pid: _Optional[int] = ..., began: _Optional[float] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("serials",)
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    serials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, serials: _Optional[_Iterable[str]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("number", "term")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    number: int
    term: int
    def __init__(self, number: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...
