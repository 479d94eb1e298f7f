//! Processes: where they run, what they use, and that they end.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Waits, on threads that serve nobody.
#[expect(
    clippy::disallowed_methods,
    reason = "threads of the load generator and the orchestrator wait; there is no worker to block"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// User and system time of all threads of a process since its start, dead ones included.
///
/// The same that `/proc/<pid>/stat` counts in hundredths of a second, in nanoseconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let clock = clock_getcpuclockid(pid).context("the process has gone")?;
    Ok(clock_gettime(clock).context("the process has gone")?.into())
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no VmRSS")?.trim().parse()?;
    Ok(kib * 1024)
}

/// Lets this process and its children have as many connections as the system allows.
///
/// # Errors
/// When that is less than `wanted`.
pub fn raise_file_limit(wanted: u64) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if hard < wanted {
        bail!("at most {hard} open files are allowed, {wanted} are needed: see `ulimit -Hn`");
    }
    Ok(())
}

/// Moves this thread, and what it starts from now on, to one processor.
fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("there is no processor {cpu}; two are needed"))
}

/// Becomes `program` on one processor, to be killed when the parent ends, however it ends.
///
/// # Errors
/// Whenever it returns.
pub fn become_child(cpu: usize, program: &Path, arguments: &[OsString]) -> Result<Infallible> {
    pin(cpu)?;
    set_pdeathsig(Signal::SIGKILL)?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The processor of what is measured.
pub const MEASURED: usize = 0;
/// The processor of everything else.
pub const OTHERS: usize = 1;

/// Moves this thread out of the way of what is measured.
///
/// # Errors
/// When there is only one processor.
pub fn step_aside() -> Result<()> {
    pin(OTHERS)
}

/// Starts what keeps the processor of the others from falling asleep: whoever sends to a sleeping
/// processor pays for waking it, which on a virtual machine is much, and a slower contender lets it
/// sleep more often. It runs only when nobody else wants to.
///
/// # Errors
/// When there is no `chrt`, which util-linux has.
pub fn keep_awake() -> Result<Process> {
    let own = std::env::current_exe()?;
    let own = own
        .to_str()
        .context("the path of this program is not text")?;
    let arguments = ["--idle", "0", own, "spin"];
    Process::start("the spinner", OTHERS, Path::new("chrt"), &arguments)
}

/// Keeps a processor busy until it is killed.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// A child that is killed, by its id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: &'static str,
    output: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `program` on one processor, by way of [`become_child`]; its standard output can be
    /// read line by line.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &'static str,
        cpu: usize,
        program: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["on", &cpu.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self {
            child,
            name,
            output,
        })
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until somebody listens at `address`.
    ///
    /// # Errors
    /// When the process ends before, or takes longer than 20 s.
    pub fn await_listening(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start: {status}", self.name);
            }
            if Instant::now() > deadline {
                bail!("{} does not listen on {address}", self.name);
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// When it ends without one.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if let Some(output) = &mut self.output {
            output.read_line(&mut line)?;
        }
        if line.is_empty() {
            bail!("{} failed: {}", self.name, self.child.wait()?);
        }
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on this machine that nobody listens at.
///
/// # Errors
/// When the system has none left.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
