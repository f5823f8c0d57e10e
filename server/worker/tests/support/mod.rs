//! A worker process as the agent runs it, with a throw-away pool's certificates, and a client that speaks its wire.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::fs::File;
use std::io::IoSliceMut;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use harp_transport::{
    connect, ClientConfig, ConnectError, FrameKind, Hello, Next, Receiver, Sender, Wait, Welcome,
};
use harp_wire::reply::replies;
use harp_wire::{CallId, Encoder, HandleKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{json, Value};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const USER: &str = "spiffe://test/tenant/a/user/b";
const SERVER_NAME: &str = "harp-server";
const STDERR: &str = "stderr";

/// The fake driver, which cargo builds as an example beside the tests. (With `--test` it does not: build it before, with
/// `cargo build -p harp-worker --example fake_driver`.)
pub fn fake_driver() -> PathBuf {
    let worker = PathBuf::from(env!("CARGO_BIN_EXE_harp-worker"));
    worker.parent().unwrap().join("examples/libfake_driver.so")
}

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, dns: &[&str], uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    pub fn client(&self, identity: &str) -> ClientConfig {
        let (cert_pem, key_pem) = self.issue(&[], identity);
        let server_name = SERVER_NAME.to_owned();
        ClientConfig {
            ca_pem: self.pem.clone(),
            cert_pem,
            key_pem,
            server_name,
        }
    }
}

/// A started worker.
pub struct Worker {
    pub process: Child,
    pub control: Option<OwnedFd>,
    pub authority: Authority,
    pub ready: Value,
    /// The driver's devices that an assignment names.
    pub devices: Option<Vec<usize>>,
    /// The authority's certificate, and what the worker writes to stderr.
    folder: tempfile::TempDir,
}

impl Worker {
    pub fn start() -> Self {
        Self::start_with(&fake_driver(), &[])
    }

    pub fn start_with(libcuda: &std::path::Path, extra: &[&str]) -> Self {
        Self::start_in(libcuda, extra, &[])
    }

    /// A worker with variables in its environment.
    pub fn start_in(libcuda: &std::path::Path, extra: &[&str], variables: &[(&str, &str)]) -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let (ours, theirs) = socket_pair();
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(env!("CARGO_BIN_EXE_harp-worker"));
        command
            .args(["--control-fd", &fd.to_string(), "--libcuda"])
            .arg(libcuda);
        command.arg("--ca").arg(&ca).args(extra);
        command.envs(variables.iter().copied());
        // A regular file, as a service's log may be.
        command.stderr(File::create(folder.path().join(STDERR)).unwrap());
        // SAFETY: fcntl is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::fcntl(fd, libc::F_SETFD, 0);
                Ok(())
            })
        };
        let process = command.spawn().expect("harp-worker starts");
        drop(theirs);
        let mut worker = Self {
            process,
            control: Some(ours),
            authority,
            ready: Value::Null,
            devices: None,
            folder,
        };
        worker.ready = worker.event();
        assert_eq!(worker.ready["event"], "ready");
        worker
    }

    /// The next event; panics when the worker has closed its control socket.
    pub fn event(&self) -> Value {
        receive(self.control.as_ref().unwrap()).expect("another event before the end")
    }

    /// Skips to the event of this name.
    pub fn event_named(&self, name: &str) -> Value {
        loop {
            let event = self.event();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Connects a client with this identity through a session that is assigned to the worker.
    pub fn connect(&self, identity: &str, hello: Hello) -> Result<Client, ConnectError> {
        self.connect_and_say(identity, hello, None)
    }

    /// The same with a cache, or with the word that there is none.
    pub fn connect_with_cache(
        &self,
        identity: &str,
        hello: Hello,
        cache: Option<&OwnedFd>,
    ) -> Result<Client, ConnectError> {
        self.connect_and_say(identity, hello, Some(cache))
    }

    fn connect_and_say(
        &self,
        identity: &str,
        hello: Hello,
        cache: Option<Option<&OwnedFd>>,
    ) -> Result<Client, ConnectError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = self.authority.client(identity);
        let connecting = thread::spawn(move || connect(&address, &config, hello, PATIENCE));
        let (socket, _) = listener.accept().unwrap();
        self.assign(&socket, cache.is_some());
        drop(socket);
        if let Some(cache) = cache {
            let control = self.control.as_ref().unwrap();
            match cache {
                Some(way) => send(control, &json!({"cache": true}), way.as_raw_fd()),
                None => send_text(control, &json!({"cache": false})),
            }
        }
        let (sender, receiver, welcome, info) = connecting.join().unwrap()?;
        Ok(Client {
            sender,
            receiver,
            welcome,
            socket: info.socket,
            tickets: 0,
        })
    }

    /// A client in a session, with the start event consumed.
    pub fn session(&self) -> Client {
        let client = self.connect(USER, Hello::current()).expect("a session");
        assert_eq!(self.event()["event"], "start");
        client
    }

    pub fn assign(&self, socket: &TcpStream, cache: bool) {
        let (cert_pem, key_pem) = self
            .authority
            .issue(&[SERVER_NAME], "spiffe://test/session/s-1");
        let devices = &self.devices;
        let assignment = json!({
            "session": "s-1", "cert_pem": cert_pem, "key_pem": key_pem, "devices": devices,
            "cache": cache
        });
        send(
            self.control.as_ref().unwrap(),
            &assignment,
            socket.as_raw_fd(),
        );
    }

    /// Waits for the process to end.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker goes on");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The cause in the end event, of a worker that then exits in good order.
    pub fn end(&mut self) -> Value {
        let end = self.event_named("end");
        assert!(self.exit().success());
        end
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let written = std::fs::read_to_string(self.folder.path().join(STDERR));
            eprintln!("the worker's stderr: {}", written.unwrap_or_default());
        }
    }
}

/// The program's side of a session.
pub struct Client {
    pub sender: Sender,
    pub receiver: Receiver,
    pub welcome: Welcome,
    pub socket: RawFd,
    tickets: u32,
}

/// An answer to one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub ticket: u32,
    pub status: u32,
    pub deferred: u32,
    pub body: Vec<u8>,
}

pub type Arguments<'a> = &'a dyn Fn(&mut Encoder);

impl Client {
    /// Sends a call that nobody waits for.
    pub fn tell(&mut self, thread: u32, call: CallId, arguments: Arguments) {
        self.raw(&record(thread, call, arguments));
    }

    /// Sends a call that wants a reply, and returns its ticket.
    pub fn post(&mut self, thread: u32, call: CallId, arguments: Arguments) -> u32 {
        self.tickets += 1;
        let mut e = Encoder::new();
        let start = e.begin_record(call, Some(self.tickets), thread);
        arguments(&mut e);
        e.end_record(start);
        self.raw(e.as_slice());
        self.tickets
    }

    /// A call and its reply.
    pub fn ask(&mut self, thread: u32, call: CallId, arguments: Arguments) -> Reply {
        let ticket = self.post(thread, call, arguments);
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1);
        let reply = replies.remove(0);
        assert_eq!(reply.ticket, ticket);
        reply
    }

    /// Sends a frame with these bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.sender
            .send(&[bytes])
            .expect("the worker takes the frame");
    }

    /// The replies of the next frame.
    pub fn replies(&mut self) -> Vec<Reply> {
        let wait = Wait {
            timeout: Some(PATIENCE),
            ..Wait::default()
        };
        match self.receiver.next(wait).expect("a link") {
            Next::Frame(head) if head.kind == FrameKind::Replies => {
                let mut frame = vec![0; head.len];
                self.receiver.read(&mut frame).unwrap();
                replies(&frame)
                    .map(|reply| {
                        let (head, body) = reply.unwrap();
                        let (ticket, status, deferred) = (head.ticket, head.status, head.deferred);
                        Reply {
                            ticket,
                            status,
                            deferred,
                            body: body.to_vec(),
                        }
                    })
                    .collect()
            }
            other => panic!("no replies but {other:?}"),
        }
    }

    /// Why the worker says goodbye.
    pub fn goodbye(&mut self) -> String {
        let wait = Wait {
            timeout: Some(PATIENCE),
            ..Wait::default()
        };
        match self.receiver.next(wait).expect("a link") {
            Next::Frame(head) => match head.kind {
                FrameKind::Bye(reason) => reason,
                other => panic!("no goodbye but {other:?}"),
            },
            other => panic!("no goodbye but {other:?}"),
        }
    }

    /// Makes the first context, module and the named function on a thread; returns the function's handle.
    pub fn function(&mut self, thread: u32, name: &str) -> u64 {
        use harp_wire::calls::*;
        let context = HandleKind::Context.handle(1);
        let status = self
            .ask(thread, CallId::cuDevicePrimaryCtxRetain, &|e| {
                encode_cuDevicePrimaryCtxRetain(e, context, 0);
            })
            .status;
        assert_eq!(status, 0);
        self.tell(thread, CallId::harp_set_current, &|e| {
            encode_harp_set_current(e, context)
        });
        // Serial numbers that no other use of this function has.
        let serial = u64::from(self.tickets) + 1;
        let module = HandleKind::Module.handle(serial);
        self.tell(thread, CallId::harp_blob_append, &|e| {
            encode_harp_blob_append(e, serial);
            e.bytes(b".version 8.0\n");
        });
        let loaded = self.ask(thread, CallId::cuModuleLoadData, &|e| {
            encode_cuModuleLoadData(e, module, serial, &[], &[], 0);
        });
        assert_eq!(loaded.status, 0);
        let function = HandleKind::Function.handle(serial);
        let name = std::ffi::CString::new(name).unwrap();
        let found = self.ask(thread, CallId::cuModuleGetFunction, &|e| {
            encode_cuModuleGetFunction(e, function, module, &name);
        });
        assert_eq!(found.status, 0);
        function
    }

    pub fn allocate(&mut self, thread: u32, bytes: u64) -> u64 {
        use harp_wire::calls::*;
        let reply = self.ask(thread, CallId::cuMemAlloc_v2, &|e| {
            encode_cuMemAlloc_v2(e, bytes)
        });
        assert_eq!(reply.status, 0);
        u64::from_le_bytes(reply.body.try_into().unwrap())
    }

    pub fn launch(&mut self, thread: u32, function: u64, stream: u64, params: &[u8]) {
        self.tell(
            thread,
            CallId::cuLaunchKernel,
            &launch(function, stream, params),
        );
    }

    /// The u64 at a device address.
    pub fn number_at(&mut self, thread: u32, address: u64) -> u64 {
        let reply = self.ask(thread, CallId::cuMemcpyDtoH_v2, &copy_out(address, 8));
        assert_eq!(reply.status, 0);
        assert_eq!(reply.body.len(), 16, "a length and the bytes");
        u64::from_le_bytes(reply.body[8..].try_into().unwrap())
    }
}

/// A call that nobody waits for, to be sent with others.
pub fn record(thread: u32, call: CallId, arguments: Arguments) -> Vec<u8> {
    let mut e = Encoder::new();
    let start = e.begin_record(call, None, thread);
    arguments(&mut e);
    e.end_record(start);
    e.into_bytes()
}

pub fn launch(function: u64, stream: u64, params: &[u8]) -> impl Fn(&mut Encoder) + '_ {
    move |e| {
        harp_wire::calls::encode_cuLaunchKernel(e, function, [1; 3], [1; 3], 0, stream, 0, params);
    }
}

/// A synchronous copy to the host.
pub fn copy_out(address: u64, bytes: u64) -> impl Fn(&mut Encoder) {
    move |e| harp_wire::calls::encode_cuMemcpyDtoH_v2(e, address, bytes, u64::MAX)
}

fn socket_pair() -> (OwnedFd, OwnedFd) {
    let mut fds: [RawFd; 2] = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, each owned once from here on.
    unsafe {
        assert_eq!(
            libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()),
            0
        );
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

fn receive(control: &OwnedFd) -> Option<Value> {
    let mut bytes = vec![0; 64 << 10];
    // SAFETY: the pointer and length describe the buffer.
    let count = unsafe {
        libc::recv(
            control.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            0,
        )
    };
    (count > 0).then(|| serde_json::from_slice(&bytes[..count as usize]).expect("JSON"))
}

fn send_text(control: &OwnedFd, message: &Value) {
    let text = message.to_string();
    // SAFETY: the string's own pointer and length.
    let sent = unsafe { libc::send(control.as_raw_fd(), text.as_ptr().cast(), text.len(), 0) };
    assert_eq!(sent, text.len() as isize);
}

fn send(control: &OwnedFd, message: &Value, socket: RawFd) {
    let mut text = message.to_string().into_bytes();
    let mut space = [0u64; 4];
    let mut part = IoSliceMut::new(&mut text);
    // SAFETY: pointers and lengths describe live buffers; there is room for one descriptor's control message.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = (&raw mut part).cast();
        header.msg_iovlen = 1;
        header.msg_control = space.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as _;
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(first)
            .cast::<RawFd>()
            .write_unaligned(socket);
        assert!(libc::sendmsg(control.as_raw_fd(), &header, 0) > 0);
    }
}
