//! Modules, libraries, links, and what is in them.

use std::ffi::CStr;
use std::os::raw::c_char;

use harp_content::PIECES_MISSING;
use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, FunctionInfo, HandleKind, Parameter, FUNCTION_ATTRIBUTE_COUNT};

use super::live;
use crate::session::{Blobs, Image, JitOptions, Session, Violation};

/// Parameters that a kernel may have; more than any launch could pass.
const MOST_PARAMETERS: usize = 32 << 10;

/// The image that a blob is, or why there is none.
fn image(blobs: &mut Blobs, blob: u64) -> Result<Result<Image, CUresult>, Violation> {
    match blobs.take(blob)? {
        Some(bytes) => Image::new(bytes),
        None => Ok(Err(PIECES_MISSING)),
    }
}

pub fn cuModuleLoadData(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuModuleLoadDataArgs::decode(d)?;
    let mut options = JitOptions::new(&args.options, &args.values, args.log_bytes)?;
    let image = match image(&mut cx.blobs, args.blob)? {
        Ok(image) => image,
        Err(code) => {
            // Who asks what was loaded hears that nothing was.
            let none = std::ptr::null_mut();
            cx.handles
                .created(HandleKind::Module, args.module, none, code)?;
            return Ok(code);
        }
    };
    let (names, values) = options.arrays();
    let mut module = std::ptr::null_mut();
    // SAFETY: see the module; the image claims no more bytes than there are.
    let status = unsafe {
        let image = image.pointer();
        (cx.driver.cuModuleLoadDataEx)(&mut module, image, options.count(), names, values)
    };
    cx.logs.insert(cx.threads.thread(), options.logs.read());
    cx.handles
        .created(HandleKind::Module, args.module, module.cast(), status)?;
    Ok(status)
}

pub fn cuLibraryLoadData(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLibraryLoadDataArgs::decode(d)?;
    let mut options = JitOptions::new(&args.options, &args.values, args.log_bytes)?;
    let room = |image: Image| match cx.images.have_room(&image) {
        true => Ok(image),
        false => Err(CUDA_ERROR_OUT_OF_MEMORY),
    };
    let image = match image(&mut cx.blobs, args.blob)?.and_then(room) {
        Ok(image) => image,
        Err(code) => {
            // Who asks what was loaded hears that nothing was.
            let none = std::ptr::null_mut();
            cx.handles
                .created(HandleKind::Library, args.library, none, code)?;
            return Ok(code);
        }
    };
    let (names, values) = options.arrays();
    let mut library = std::ptr::null_mut();
    // The image is kept, as the CUDA runtime promises to, so that the driver need not copy it.
    let mut kept = CU_LIBRARY_BINARY_IS_PRESERVED;
    let mut yes = std::ptr::without_provenance_mut(1);
    // SAFETY: as above.
    let status = unsafe {
        (cx.driver.cuLibraryLoadData)(
            &mut library,
            image.pointer(),
            names,
            values,
            options.count(),
            &mut kept,
            &mut yes,
            1,
        )
    };
    cx.logs.insert(cx.threads.thread(), options.logs.read());
    cx.handles
        .created(HandleKind::Library, args.library, library.cast(), status)?;
    if status == 0 {
        cx.images.keep(args.library, image);
    }
    Ok(status)
}

pub fn cuLibraryUnload(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLibraryUnloadArgs::decode(d)?;
    let library: CUlibrary = live!(cx.handles.get(HandleKind::Library, args.library));
    // SAFETY: a live library.
    let status = unsafe { (cx.driver.cuLibraryUnload)(library) };
    if status == 0 {
        cx.handles.remove(HandleKind::Library, args.library);
        cx.images.forget(args.library);
    }
    Ok(status)
}

pub fn cuModuleGetFunction(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuModuleGetFunctionArgs::decode(d)?;
    let module = live!(cx.handles.get(HandleKind::Module, args.module));
    let mut function: CUfunction = std::ptr::null_mut();
    // SAFETY: see the module.
    let status =
        unsafe { (cx.driver.cuModuleGetFunction)(&mut function, module, args.name.as_ptr()) };
    if status != 0 {
        return Ok(status);
    }
    cx.handles
        .created(HandleKind::Function, args.function, function.cast(), 0)?;
    cx.handles.belongs(args.function, args.module);
    let info = function_info(cx, function);
    encode_cuModuleGetFunction_reply(out, &info);
    cx.handles.layouts.insert(args.function, info.params.into());
    Ok(0)
}

pub fn cuLibraryGetKernel(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLibraryGetKernelArgs::decode(d)?;
    let library = live!(cx.handles.get(HandleKind::Library, args.library));
    let mut kernel: CUkernel = std::ptr::null_mut();
    // SAFETY: see the module.
    let status =
        unsafe { (cx.driver.cuLibraryGetKernel)(&mut kernel, library, args.name.as_ptr()) };
    if status != 0 {
        return Ok(status);
    }
    cx.handles
        .created(HandleKind::Kernel, args.kernel, kernel.cast(), 0)?;
    cx.handles.belongs(args.kernel, args.library);
    let info = kernel_info(cx, kernel);
    encode_cuLibraryGetKernel_reply(out, &info);
    cx.handles.layouts.insert(args.kernel, info.params.into());
    Ok(0)
}

pub fn cuKernelGetFunction(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuKernelGetFunctionArgs::decode(d)?;
    let kernel = live!(cx.handles.get(HandleKind::Kernel, args.kernel));
    let mut function: CUfunction = std::ptr::null_mut();
    // SAFETY: see the module.
    let status = unsafe { (cx.driver.cuKernelGetFunction)(&mut function, kernel) };
    if status != 0 {
        return Ok(status);
    }
    cx.handles
        .created(HandleKind::Function, args.function, function.cast(), 0)?;
    cx.handles.belongs(args.function, args.kernel);
    let info = function_info(cx, function);
    encode_cuKernelGetFunction_reply(out, &info);
    cx.handles.layouts.insert(args.function, info.params.into());
    Ok(0)
}

/// Parameters and attributes of a function.
fn function_info(cx: &Session, function: CUfunction) -> FunctionInfo {
    let driver = cx.driver;
    FunctionInfo {
        params: parameters(|index, offset, size| unsafe {
            (driver.cuFuncGetParamInfo)(function, index, offset, size)
        }),
        attributes: attributes(|value, attribute| unsafe {
            (driver.cuFuncGetAttribute)(value, attribute, function)
        }),
    }
}

/// What is known of a library's kernel by itself. Its attributes are those of its function in a context: where they were
/// asked of the kernel before any context had loaded it, driver 580 has been seen to crash at the first launch of one
/// that prints.
fn kernel_info(cx: &Session, kernel: CUkernel) -> FunctionInfo {
    let driver = cx.driver;
    FunctionInfo {
        params: parameters(|index, offset, size| unsafe {
            (driver.cuKernelGetParamInfo)(kernel, index, offset, size)
        }),
        attributes: attributes(|_, _| CUDA_ERROR_INVALID_CONTEXT),
    }
}

/// Asks for one parameter after another until there are no more.
fn parameters(mut ask: impl FnMut(usize, *mut usize, *mut usize) -> CUresult) -> Vec<Parameter> {
    let mut found = Vec::new();
    let (mut offset, mut size) = (0, 0);
    while found.len() < MOST_PARAMETERS && ask(found.len(), &mut offset, &mut size) == 0 {
        found.push(Parameter {
            offset: offset as u32,
            size: size as u32,
        });
    }
    found
}

fn attributes(
    mut ask: impl FnMut(*mut i32, CUfunction_attribute) -> CUresult,
) -> [i32; FUNCTION_ATTRIBUTE_COUNT] {
    std::array::from_fn(|attribute| {
        let mut value = 0;
        match ask(&mut value, attribute as CUfunction_attribute) {
            0 => value,
            _ => i32::MIN,
        }
    })
}

/// The parameter layout of a function, asked for at its first use here if it was not before.
pub(super) fn layout(cx: &mut Session, id: u64, function: CUfunction) {
    if !cx.handles.layouts.contains_key(&id) {
        let info = match HandleKind::of(id) {
            Some(HandleKind::Kernel) => kernel_info(cx, function.cast()),
            _ => function_info(cx, function),
        };
        cx.handles.layouts.insert(id, info.params.into());
    }
}

pub fn harp_module_functions(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpModuleFunctionsArgs::decode(d)?;
    let module = live!(cx.handles.get(HandleKind::Module, args.module));
    let driver = cx.driver;
    let listed: Result<Vec<CUfunction>, CUresult> = list(
        u32::MAX,
        |count| unsafe { (driver.cuModuleGetFunctionCount)(count, module) },
        |all, count| unsafe { (driver.cuModuleEnumerateFunctions)(all, count, module) },
    );
    let names = match listed {
        Ok(all) => names(&all, |name, one| unsafe {
            (driver.cuFuncGetName)(name, one)
        }),
        Err(code) => return Ok(code),
    };
    super::copies::reply_bytes(names_bytes(&names))?;
    encode_harp_module_functions_reply(out, &names);
    Ok(0)
}

pub fn harp_library_kernels(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpLibraryKernelsArgs::decode(d)?;
    let library = live!(cx.handles.get(HandleKind::Library, args.library));
    let driver = cx.driver;
    let listed: Result<Vec<CUkernel>, CUresult> = list(
        u32::MAX,
        |count| unsafe { (driver.cuLibraryGetKernelCount)(count, library) },
        |all, count| unsafe { (driver.cuLibraryEnumerateKernels)(all, count, library) },
    );
    let names = match listed {
        Ok(all) => names(&all, |name, one| unsafe {
            (driver.cuKernelGetName)(name, one)
        }),
        Err(code) => return Ok(code),
    };
    super::copies::reply_bytes(names_bytes(&names))?;
    encode_harp_library_kernels_reply(out, &names);
    Ok(0)
}

/// Loads the kernels of an image in the current context, if there are few, and says what they are.
pub fn harp_describe(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpDescribeArgs::decode(d)?;
    let functions = match HandleKind::of(args.owner) {
        Some(HandleKind::Module) => {
            let module = live!(cx.handles.get(HandleKind::Module, args.owner));
            module_functions(cx, module, args.most)
        }
        _ => {
            let library = live!(cx.handles.get(HandleKind::Library, args.owner));
            library_functions(cx, library, args.most)
        }
    };
    let driver = cx.driver;
    let name = |function: &CUfunction| {
        names(&[*function], |name, one| unsafe {
            (driver.cuFuncGetName)(name, one)
        })
        .pop()
    };
    let functions = functions.unwrap_or_default();
    let named = functions.iter().filter_map(|one| Some((name(one)?, *one)));
    let (names, functions): (Vec<&CStr>, Vec<CUfunction>) = named.unzip();
    let infos: Vec<_> = functions
        .iter()
        .map(|one| function_info(cx, *one))
        .collect();
    let of_info = |info: &FunctionInfo| (size_of_val(info) + size_of_val(&*info.params)) as u64;
    let bytes = names_bytes(&names) + infos.iter().map(of_info).sum::<u64>();
    super::copies::reply_bytes(bytes)?;
    // SAFETY: functions of a live module.
    let load = |one: &CUfunction| u8::from(unsafe { (driver.cuFuncLoad)(*one) } == 0);
    let loaded: Vec<u8> = functions.iter().map(load).collect();
    encode_harp_describe_reply(out, &names, &infos, &loaded);
    Ok(0)
}

/// The functions of a module, if there are no more than `most`.
fn module_functions(
    cx: &Session,
    module: CUmodule,
    most: u32,
) -> Result<Vec<CUfunction>, CUresult> {
    let driver = cx.driver;
    list(
        most,
        |count| unsafe { (driver.cuModuleGetFunctionCount)(count, module) },
        |all, count| unsafe { (driver.cuModuleEnumerateFunctions)(all, count, module) },
    )
}

/// Those of a library's kernels in the current context.
fn library_functions(
    cx: &Session,
    library: CUlibrary,
    most: u32,
) -> Result<Vec<CUfunction>, CUresult> {
    let driver = cx.driver;
    let kernels: Vec<CUkernel> = list(
        most,
        |count| unsafe { (driver.cuLibraryGetKernelCount)(count, library) },
        |all, count| unsafe { (driver.cuLibraryEnumerateKernels)(all, count, library) },
    )?;
    let function = |kernel: &CUkernel| {
        let mut function = std::ptr::null_mut();
        // SAFETY: a kernel of a live library.
        match unsafe { (driver.cuKernelGetFunction)(&mut function, *kernel) } {
            0 => Ok(function),
            code => Err(code),
        }
    };
    kernels.iter().map(function).collect()
}

/// All objects of an enumeration in two steps: how many, then which. None where there are more than `most`.
fn list<T>(
    most: u32,
    ask_count: impl FnOnce(*mut u32) -> CUresult,
    ask_all: impl FnOnce(*mut *mut T, u32) -> CUresult,
) -> Result<Vec<*mut T>, CUresult> {
    let mut count = 0;
    match ask_count(&mut count) {
        0 if count > most => return Ok(Vec::new()),
        0 => {}
        code => return Err(code),
    }
    let mut all = vec![std::ptr::null_mut(); count as usize];
    match ask_all(all.as_mut_ptr(), count) {
        0 => Ok(all),
        code => Err(code),
    }
}

/// Their names; one that has none is left out.
fn names<T>(
    all: &[*mut T],
    ask: impl Fn(*mut *const c_char, *mut T) -> CUresult,
) -> Vec<&'static CStr> {
    let name_of = |one: &*mut T| {
        let mut name = std::ptr::null();
        if ask(&mut name, *one) != 0 || name.is_null() {
            return None;
        }
        // SAFETY: the driver's string lives as long as the module, longer than this call.
        Some(unsafe { CStr::from_ptr(name) })
    };
    all.iter().filter_map(name_of).collect()
}

/// What names take in a reply, or a little more.
fn names_bytes(names: &[&CStr]) -> u64 {
    let of_name = |name: &&CStr| name.count_bytes() as u64 + 8;
    names.iter().map(of_name).sum()
}

pub fn cuLinkCreate_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLinkCreate_v2Args::decode(d)?;
    let mut options = JitOptions::new(&args.options, &args.values, args.log_bytes)?;
    let (names, values) = options.arrays();
    let mut link = std::ptr::null_mut();
    // SAFETY: see the module. The options are kept as long as the link.
    let status = unsafe { (cx.driver.cuLinkCreate_v2)(options.count(), names, values, &mut link) };
    cx.handles
        .created(HandleKind::Link, args.link, link.cast(), status)?;
    cx.logs.insert(cx.threads.thread(), options.logs.read());
    if status == 0 {
        cx.link_options.insert(args.link, options);
    }
    Ok(status)
}

pub fn cuLinkAddData_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLinkAddData_v2Args::decode(d)?;
    let mut options = JitOptions::new(&args.options, &args.values, 0)?;
    let link = live!(cx.handles.get(HandleKind::Link, args.link));
    let Some(mut image) = cx.blobs.take(args.blob)? else {
        return Ok(PIECES_MISSING);
    };
    if args.type_ == CU_JIT_INPUT_PTX {
        image.push(0);
    }
    let (names, values) = options.arrays();
    // SAFETY: see the module.
    let status = unsafe {
        (cx.driver.cuLinkAddData_v2)(
            link,
            args.type_,
            image.as_mut_ptr().cast(),
            image.len(),
            args.name.as_ptr(),
            options.count(),
            names,
            values,
        )
    };
    note_link_logs(cx, args.link);
    Ok(status)
}

pub fn cuLinkComplete(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLinkCompleteArgs::decode(d)?;
    let link = live!(cx.handles.get(HandleKind::Link, args.link));
    let (mut image, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: see the module.
    let status = unsafe { (cx.driver.cuLinkComplete)(link, &mut image, &mut bytes) };
    note_link_logs(cx, args.link);
    if status == 0 {
        super::copies::reply_bytes(bytes as u64)?;
        // SAFETY: the driver's image, which lives as long as the link.
        let linked = unsafe { std::slice::from_raw_parts(image.cast::<u8>(), bytes) };
        encode_cuLinkComplete_reply(out, linked);
    }
    Ok(status)
}

pub fn cuLinkDestroy(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLinkDestroyArgs::decode(d)?;
    let link = live!(cx.handles.get(HandleKind::Link, args.state));
    // SAFETY: a live link.
    let status = unsafe { (cx.driver.cuLinkDestroy)(link) };
    if status == 0 {
        cx.handles.remove(HandleKind::Link, args.state);
        cx.link_options.remove(&args.state);
    }
    Ok(status)
}

fn note_link_logs(cx: &mut Session, link: u64) {
    if let Some(options) = cx.link_options.get(&link) {
        cx.logs.insert(cx.threads.thread(), options.logs.read());
    }
}
