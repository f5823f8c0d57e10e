from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Demand(_message.Message):
    __slots__ = ("kind", "count", "models", "memory", "compute", "labels", "same_server")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SAME_SERVER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    count: int
    models: _containers.RepeatedScalarFieldContainer[str]
    memory: int
    compute: int
    labels: _containers.ScalarMap[str, str]
    same_server: bool
    def __init__(self, kind: _Optional[str] = ..., count: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ..., memory: _Optional[int] = ..., compute: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., same_server: _Optional[bool] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("request_id", "tenant", "demand", "profile", "name", "host", "users", "priority", "ttl", "longest")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    demand: Demand
    profile: str
    name: str
    host: str
    users: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    ttl: float
    longest: float
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ..., profile: _Optional[str] = ..., name: _Optional[str] = ..., host: _Optional[str] = ..., users: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., ttl: _Optional[float] = ..., longest: _Optional[float] = ...) -> None: ...

class DetachRequest(_message.Message):
    __slots__ = ("request_id", "lease", "tenant", "how")
    class How(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HOW_IF_UNUSED: _ClassVar[DetachRequest.How]
        HOW_DRAIN: _ClassVar[DetachRequest.How]
        HOW_FORCE: _ClassVar[DetachRequest.How]
    HOW_IF_UNUSED: DetachRequest.How
    HOW_DRAIN: DetachRequest.How
    HOW_FORCE: DetachRequest.How
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease: str
    tenant: str
    how: DetachRequest.How
    def __init__(self, request_id: _Optional[str] = ..., lease: _Optional[str] = ..., tenant: _Optional[str] = ..., how: _Optional[_Union[DetachRequest.How, str]] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("request_id", "lease", "tenant")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease: str
    tenant: str
    def __init__(self, request_id: _Optional[str] = ..., lease: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: str
    def __init__(self, lease: _Optional[str] = ...) -> None: ...

class WatchLeaseRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: str
    def __init__(self, lease: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kinds", "name", "tenant")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    name: str
    tenant: str
    def __init__(self, kinds: _Optional[_Iterable[str]] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class Things(_message.Message):
    __slots__ = ("servers", "devices", "leases", "profiles", "tenants", "revision", "sessions", "hosts", "now")
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    devices: _containers.RepeatedCompositeFieldContainer[Accelerator]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    profiles: _containers.RepeatedCompositeFieldContainer[Profile]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    revision: int
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    hosts: _containers.RepeatedCompositeFieldContainer[Host]
    now: float
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[Accelerator, _Mapping]]] = ..., leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., profiles: _Optional[_Iterable[_Union[Profile, _Mapping]]] = ..., tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ..., revision: _Optional[int] = ..., sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., hosts: _Optional[_Iterable[_Union[Host, _Mapping]]] = ..., now: _Optional[float] = ...) -> None: ...

class Host(_message.Message):
    __slots__ = ("name", "leases", "devices", "sessions", "left_out")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    leases: _containers.RepeatedScalarFieldContainer[str]
    devices: _containers.RepeatedScalarFieldContainer[str]
    sessions: int
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., leases: _Optional[_Iterable[str]] = ..., devices: _Optional[_Iterable[str]] = ..., sessions: _Optional[int] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("name", "address", "labels", "connected", "cordoned", "silent", "devices", "sessions")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    labels: _containers.ScalarMap[str, str]
    connected: bool
    cordoned: bool
    silent: float
    devices: int
    sessions: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., connected: _Optional[bool] = ..., cordoned: _Optional[bool] = ..., silent: _Optional[float] = ..., devices: _Optional[int] = ..., sessions: _Optional[int] = ...) -> None: ...

class Accelerator(_message.Message):
    __slots__ = ("id", "server", "ordinal", "kind", "model", "memory", "labels", "unusable", "fault", "memory_leased", "compute_leased", "leases")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LEASED_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_LEASED_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    id: str
    server: str
    ordinal: int
    kind: str
    model: str
    memory: int
    labels: _containers.ScalarMap[str, str]
    unusable: str
    fault: str
    memory_leased: int
    compute_leased: int
    leases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., server: _Optional[str] = ..., ordinal: _Optional[int] = ..., kind: _Optional[str] = ..., model: _Optional[str] = ..., memory: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., unusable: _Optional[str] = ..., fault: _Optional[str] = ..., memory_leased: _Optional[int] = ..., compute_leased: _Optional[int] = ..., leases: _Optional[_Iterable[str]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "name", "tenant", "owner", "host", "users", "demand", "priority", "state", "reason", "targets", "epoch", "sessions", "place", "ttl")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    owner: str
    host: str
    users: _containers.RepeatedScalarFieldContainer[str]
    demand: Demand
    priority: int
    state: str
    reason: str
    targets: _containers.RepeatedCompositeFieldContainer[Target]
    epoch: int
    sessions: int
    place: int
    ttl: float
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., owner: _Optional[str] = ..., host: _Optional[str] = ..., users: _Optional[_Iterable[str]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ..., priority: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[Target, _Mapping]]] = ..., epoch: _Optional[int] = ..., sessions: _Optional[int] = ..., place: _Optional[int] = ..., ttl: _Optional[float] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("server", "address", "device", "ordinal", "kind", "model", "memory", "compute", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    server: str
    address: str
    device: str
    ordinal: int
    kind: str
    model: str
    memory: int
    compute: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, server: _Optional[str] = ..., address: _Optional[str] = ..., device: _Optional[str] = ..., ordinal: _Optional[int] = ..., kind: _Optional[str] = ..., model: _Optional[str] = ..., memory: _Optional[int] = ..., compute: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("name", "server", "lease", "lease_name", "tenant", "host", "user", "program", "pid", "began")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LEASE_NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    server: str
    lease: str
    lease_name: str
    tenant: str
    host: str
    user: str
    program: str
    pid: int
    began: float
    def __init__(self, name: _Optional[str] = ..., server: _Optional[str] = ..., lease: _Optional[str] = ..., lease_name: _Optional[str] = ..., tenant: _Optional[str] = ..., host: _Optional[str] = ..., user: _Optional[str] = ..., program: _Optional[str] = ..., pid: _Optional[int] = ..., began: _Optional[float] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("request_id", "session", "payload")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    session: str
    payload: str
    def __init__(self, request_id: _Optional[str] = ..., session: _Optional[str] = ..., payload: _Optional[str] = ...) -> None: ...

class CordonRequest(_message.Message):
    __slots__ = ("request_id", "subject", "on", "drain")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    subject: str
    on: bool
    drain: bool
    def __init__(self, request_id: _Optional[str] = ..., subject: _Optional[str] = ..., on: _Optional[bool] = ..., drain: _Optional[bool] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("request_id", "name")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ("devices", "memory", "compute", "leases", "longest", "sessions")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    devices: int
    memory: int
    compute: int
    leases: int
    longest: float
    sessions: int
    def __init__(self, devices: _Optional[int] = ..., memory: _Optional[int] = ..., compute: _Optional[int] = ..., leases: _Optional[int] = ..., longest: _Optional[float] = ..., sessions: _Optional[int] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("request_id", "name", "quota", "used")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    quota: Quota
    used: Quota
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., quota: _Optional[_Union[Quota, _Mapping]] = ..., used: _Optional[_Union[Quota, _Mapping]] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("request_id", "name", "demand")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    demand: Demand
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
