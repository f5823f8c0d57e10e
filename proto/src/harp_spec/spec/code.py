"""Modules, libraries, kernels and links.

An image travels as a blob (``harp_blob_append``) that the loading call names. Loads are replies:
programs branch on their errors. Of an image with few kernels the server loads them all and says
what they are (``harp_describe``), so that looking one up and launching it cannot fail any more and
is sent one way. Of others a kernel's parameters and attributes come back with its handle.
"""

from harp_spec.codecs import BYTES, FUNCTION_INFO, TEXT, U32, U64, handle, sequence
from harp_spec.spec.vocabulary import (
    CHOSEN,
    FIRST_USE,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    SETTING,
    VALUE,
    Area,
    Create,
    Custom,
    Launchable,
    Out,
    Use,
)
from harp_spec.spec.vocabulary import TEXT as NAME

CODE = Area("code", 0x0300)

#: JIT options whose value is a number; those that are buffers stay with the client, and
#: `log_bytes` says how much of each log there is room for (0: none is asked for).
JIT_OPTIONS = {"options": sequence(U32), "values": sequence(U64), "log_bytes": U32}

SENDS_IMAGE = Custom("finds the image's length and sends it ahead as a blob")
LOADS_BLOB = Custom("loads from the session's blobs and keeps the logs")
KEEPS_INFO = Custom("keeps the kernel's parameters and attributes with its handle")
GATHERS_INFO = Custom("gathers the kernel's parameters and attributes")
KEEPS_RANGES = Custom("the variable's address joins the client's map of device ranges")
LISTS = Custom("looks each name up, so that a kernel has one handle however it was found")
FORGETS = Custom("forgets the kernels and variables that it handed out")
KEEPS_ALIAS = Custom("gives one handle for the same object")
UNLOAD_ERRORS = ("INVALID_HANDLE",)

CODE.wire(
    "cuModuleLoadData",
    0x0301,
    REPLY,
    {"module": handle("Module"), "blob": U64, **JIT_OPTIONS},
    client=SENDS_IMAGE,
    server=LOADS_BLOB,
    charge=("memory", "driver"),
    because=FIRST_USE,
)
CODE.via("cuModuleLoad", REPLY, "cuModuleLoadData", reason="reads the file on the client")
CODE.via("cuModuleLoadDataEx", REPLY, "cuModuleLoadData", "harp_jit_logs")
CODE.via("cuModuleLoadFatBinary", REPLY, "cuModuleLoadData")
CODE.call(
    "cuModuleUnload",
    0x0302,
    ONE_WAY,
    {"hmod": Use("Module", destroys=True)},
    client=FORGETS,
    needs_context=False,
    predicts=UNLOAD_ERRORS,
)
CODE.wire(
    "cuModuleGetFunction",
    0x0303,
    REPLY,
    {"function": handle("Function"), "module": handle("Module"), "name": TEXT},
    {"info": FUNCTION_INFO},
    client=KEEPS_INFO,
    server=GATHERS_INFO,
    because=FIRST_USE,
)
CODE.call(
    "cuModuleGetGlobal_v2",
    0x0304,
    REPLY,
    {
        "dptr": Out(optional=True),
        "bytes": Out(optional=True),
        "hmod": Use("Module"),
        "name": NAME,
    },
    client=KEEPS_RANGES,
    needs_context=False,
    because=CHOSEN,
)
CODE.wire(
    "harp_module_functions",
    0x0305,
    REPLY,
    {"module": handle("Module")},
    {"names": sequence(TEXT)},
    client=LISTS,
    server=Custom("asks for handles and then for their names"),
    record="skip",
    because=FIRST_USE,
)
CODE.via("cuModuleGetFunctionCount", REPLY, "harp_module_functions")
CODE.via("cuModuleEnumerateFunctions", REPLY, "harp_module_functions", "cuModuleGetFunction")

CODE.wire(
    "cuLibraryLoadData",
    0x0310,
    REPLY,
    {"library": handle("Library"), "blob": U64, **JIT_OPTIONS},
    client=SENDS_IMAGE,
    server=LOADS_BLOB,
    charge=("memory", "driver"),
    because=FIRST_USE,
)
CODE.via("cuLibraryLoadFromFile", REPLY, "cuLibraryLoadData", reason="reads the file on the client")
CODE.call(
    "cuLibraryUnload",
    0x0311,
    ONE_WAY,
    {"library": Use("Library", destroys=True)},
    client=FORGETS,
    server=Custom("gives up the image that it kept for the library"),
    needs_context=False,
    predicts=UNLOAD_ERRORS,
)
CODE.wire(
    "cuLibraryGetKernel",
    0x0312,
    REPLY,
    {"kernel": handle("Kernel"), "library": handle("Library"), "name": TEXT},
    {"info": FUNCTION_INFO},
    client=KEEPS_INFO,
    server=GATHERS_INFO,
    because=FIRST_USE,
)
CODE.call(
    "cuLibraryGetModule",
    0x0313,
    REPLY,
    {"pMod": Create("Module"), "library": Use("Library")},
    client=KEEPS_ALIAS,
    because=CHOSEN,
)
CODE.call(
    "cuLibraryGetGlobal",
    0x0314,
    REPLY,
    {
        "dptr": Out(optional=True),
        "bytes": Out(optional=True),
        "library": Use("Library"),
        "name": NAME,
    },
    client=KEEPS_RANGES,
    because=CHOSEN,
)
CODE.wire(
    "harp_library_kernels",
    0x0315,
    REPLY,
    {"library": handle("Library")},
    {"names": sequence(TEXT)},
    client=LISTS,
    server=Custom("asks for handles and then for their names"),
    record="skip",
    because=FIRST_USE,
)
CODE.via("cuLibraryGetKernelCount", REPLY, "harp_library_kernels")
CODE.via("cuLibraryEnumerateKernels", REPLY, "harp_library_kernels", "cuLibraryGetKernel")
CODE.wire(
    "cuKernelGetFunction",
    0x0317,
    REPLY,
    {"function": handle("Function"), "kernel": handle("Kernel")},
    {"info": FUNCTION_INFO},
    client=Custom("asked once in each life of a context; a kernel is launched through it"),
    server=GATHERS_INFO,
    because=FIRST_USE,
)

CODE.wire(
    "harp_describe",
    0x0340,
    REPLY,
    {"owner": handle("Module", "Library"), "most": U32},
    {"names": sequence(TEXT), "infos": sequence(FUNCTION_INFO), "loaded": BYTES},
    client=Custom("asked with each load, so that first uses of small images need no answer"),
    server=Custom("loads the kernels in the current context, unless there are more than `most`"),
    record="skip",
    because=FIRST_USE,
)

CODE.local(
    "what came with the handle",
    "cuFuncGetModule",
    "cuFuncGetName",
    "cuFuncGetParamCount",
    "cuFuncGetParamInfo",
    "cuFuncIsLoaded",
    "cuKernelGetLibrary",
    "cuKernelGetName",
    "cuKernelGetParamCount",
    "cuKernelGetParamInfo",
)
CODE.local(
    "a preference that no program can observe",
    "cuFuncSetCacheConfig",
    "cuFuncSetSharedMemConfig",
    "cuKernelSetCacheConfig",
)
CODE.local("variables are not managed", "cuLibraryGetManaged")
CODE.call(
    "cuFuncGetAttribute",
    0x0320,
    REPLY,
    {"pi": OUT, "attrib": VALUE, "hfunc": Launchable()},
    client=KEEPS_INFO,
    needs_context=False,
    record="skip",
    notes="sent only for attributes that did not come with the handle",
    because=QUERY,
)
CODE.call(
    "cuFuncSetAttribute",
    0x0321,
    REPLY,
    {"hfunc": Launchable(), "attrib": VALUE, "value": VALUE},
    client=KEEPS_INFO,
    needs_context=False,
    because=SETTING,
)
CODE.call(
    "cuFuncLoad",
    0x0326,
    REPLY,
    {"function": Launchable()},
    client=Custom(
        "answers itself for a function that the server has loaded, and notes what it loads"
    ),
    needs_context=False,
    because=FIRST_USE,
)
CODE.call(
    "cuKernelGetAttribute",
    0x0324,
    REPLY,
    {"pi": OUT, "attrib": VALUE, "kernel": Use("Kernel"), "dev": VALUE},
    client=KEEPS_INFO,
    needs_context=False,
    record="skip",
    notes="sent only for attributes that did not come with the handle",
    because=QUERY,
)
CODE.call(
    "cuKernelSetAttribute",
    0x0325,
    REPLY,
    {"attrib": VALUE, "val": VALUE, "kernel": Use("Kernel"), "dev": VALUE},
    client=KEEPS_INFO,
    needs_context=False,
    because=SETTING,
)

LINKS = Custom("owns the linked image until the link is destroyed")
CODE.wire(
    "cuLinkCreate_v2",
    0x0330,
    REPLY,
    {"link": handle("Link"), **JIT_OPTIONS},
    client=LINKS,
    server=Custom("keeps the logs"),
    because=FIRST_USE,
)
CODE.wire(
    "cuLinkAddData_v2",
    0x0331,
    REPLY,
    {
        "link": handle("Link"),
        "type": U32,
        "blob": U64,
        "name": TEXT,
        "options": sequence(U32),
        "values": sequence(U64),
    },
    client=SENDS_IMAGE,
    server=Custom("adds from the session's blobs"),
    because=FIRST_USE,
)
CODE.via("cuLinkAddFile_v2", REPLY, "cuLinkAddData_v2", reason="reads the file on the client")
CODE.wire(
    "cuLinkComplete",
    0x0332,
    REPLY,
    {"link": handle("Link")},
    {"image": BYTES},
    client=LINKS,
    server=Custom("the image is the driver's memory"),
    because=FIRST_USE,
)
CODE.call(
    "cuLinkDestroy",
    0x0333,
    ONE_WAY,
    {"state": Use("Link", destroys=True)},
    client=LINKS,
    server=Custom("gives up the options that it kept for the link"),
    needs_context=False,
    predicts=("INVALID_HANDLE",),
)
