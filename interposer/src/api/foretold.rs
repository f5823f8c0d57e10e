//! What a server says of an image's kernels when it has loaded them, so that looking them up and launching
//! them for the first time need no answer of their own: it has done both already, as far as either can fail.

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use harp_cuda_abi::types::*;
use harp_wire::calls::{encode_harp_describe, HarpDescribeReply};
use harp_wire::{CallId, Encoder, FunctionInfo};

use super::context::current_life;
use crate::session::settings::settings;
use crate::session::Session;

/// An image with more kernels than this is not loaded ahead of need: drivers load kernels when they are used.
const MOST_KERNELS: u32 = 16;

/// A kernel's function in the context that its image was loaded in.
#[derive(Clone)]
pub struct Kernel {
    pub info: FunctionInfo,
    /// The driver has loaded it.
    pub loaded: bool,
    life: (u64, u32),
}

impl Kernel {
    /// Whether it tells of the current context, in the life that this has now.
    pub fn is_current(&self) -> bool {
        current_life().is_ok_and(|life| life == self.life)
    }
}

/// The kernels of a module or library that the server told of, by name.
#[derive(Clone, Default)]
pub struct Foretold(HashMap<CString, Kernel>);

impl Foretold {
    /// A kernel of that name in the current context.
    pub fn kernel(&self, name: &CStr) -> Option<&Kernel> {
        self.0.get(name).filter(|kernel| kernel.is_current())
    }

    /// Whether the image is known to be loaded into the current context.
    pub fn is_loaded(&self) -> bool {
        self.0.values().next().is_some_and(Kernel::is_current)
    }

    /// Makes the call that loads an image as `owner`, and learns what is in it; the code that it ended with.
    pub fn load(
        &mut self,
        session: &Session,
        owner: u64,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
    ) -> CUresult {
        let life = current_life().ok().filter(|_| session.is_current());
        match life.filter(|_| session.describes && !settings().every_call_waits) {
            None => session.request(call, encode, |_| ()),
            Some(life) => session.request_both(
                call,
                encode,
                CallId::harp_describe,
                |encoder| encode_harp_describe(encoder, owner, MOST_KERNELS),
                |decoder| *self = Foretold::read(&HarpDescribeReply::read(decoder), life),
            ),
        }
    }

    fn read(reply: &HarpDescribeReply, life: (u64, u32)) -> Foretold {
        let described = reply.names.iter().zip(&reply.infos).zip(reply.loaded);
        let kernel = |((name, info), loaded): ((&&CStr, &FunctionInfo), &u8)| {
            let (info, loaded) = (info.clone(), *loaded == 1);
            let kernel = Kernel { info, loaded, life };
            ((*name).to_owned(), kernel)
        };
        Foretold(described.map(kernel).collect())
    }
}
