//! Where the parameters of kernels lie, as the recording was told: so that two numbers side by side are not
//! taken for an address.

use std::collections::HashMap;
use std::rc::Rc;

use harp_trace::event::{CallEvent, ReplyEvent, Value};
use harp_wire::CallId;

/// Offset and size of each parameter of a kernel.
pub type Layout = Rc<[(u32, u32)]>;

/// The layouts that are known. Handles are those of their session.
#[derive(Debug, Default)]
pub struct Layouts {
    of_handle: HashMap<(u32, u64), Layout>,
    /// By the module or library, and the name in it.
    described: HashMap<(u32, u64, Vec<u8>), Layout>,
}

impl Layouts {
    /// That of a function or kernel.
    pub fn get(&self, session: u32, handle: u64) -> Option<&Layout> {
        self.of_handle.get(&(session, handle))
    }

    /// A call has made a function or kernel known, which may have been described before.
    pub fn called(&mut self, today: CallId, call: &CallEvent) {
        if !makes_known(today) {
            return;
        }
        let session = call.session;
        let mut handles = call.arguments.handles();
        let (Some(made), Some(of)) = (handles.next(), handles.next()) else {
            return;
        };
        let known = match call.arguments.get("name") {
            Some(Value::Text(name)) => self.described.get(&(session, of, name.to_vec())),
            _ => self.of_handle.get(&(session, of)),
        };
        if let Some(layout) = known.cloned() {
            self.of_handle.insert((session, made), layout);
        }
    }

    /// A reply about `handle`, the first one of its call, may say how parameters lie.
    pub fn answered(&mut self, handle: u64, reply: &ReplyEvent) {
        let session = reply.session;
        for value in &reply.outputs.values {
            if let Some(layout) = layout(value) {
                self.of_handle.insert((session, handle), layout);
            }
        }
        if let (Some(Value::List(names)), Some(Value::List(infos))) =
            (reply.outputs.get("names"), reply.outputs.get("infos"))
        {
            for (name, info) in names.iter().zip(infos) {
                if let (Value::Text(name), Some(layout)) = (name, layout(info)) {
                    let of = (session, handle, name.to_vec());
                    self.described.insert(of, layout);
                }
            }
        }
    }
}

/// Calls that make a function known: by its name in a module or library, or by the kernel that it is of.
fn makes_known(call: CallId) -> bool {
    matches!(
        call,
        CallId::cuModuleGetFunction | CallId::cuLibraryGetKernel | CallId::cuKernelGetFunction
    )
}

fn layout(value: &Value) -> Option<Layout> {
    match value {
        Value::FunctionInfo { params, .. } => Some(params.as_slice().into()),
        _ => None,
    }
}
