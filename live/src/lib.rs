//! Real servers for tests: each on a free port and on a Unix socket, in a scratch directory of its own.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is for tests")]

use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group, test_kill_process_group};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to start on a busy machine, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with this.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Starts it again.
    command: Command,
    ready: Ready,
    directory: TempDir,
    pub address: SocketAddr,
}

/// It is ready when it answers this question in a way that begins so.
#[derive(Clone, Copy, Debug)]
struct Ready {
    question: &'static [u8],
    answer: &'static [u8],
}

impl Server {
    /// `redis-server` with more options.
    #[must_use]
    pub fn redis(options: &[&str]) -> Server {
        Server::start(b"PING\r\n", b"", |directory, port| {
            let mut command = Command::new("redis-server");
            let port = port.to_string();
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
            command.arg("--unixsocket").arg(directory.join("socket")).arg("--dir").arg(directory);
            command.args(options);
            command
        })
    }

    /// `redis-server` over its own TLS as well, on the port that is told, with a new certificate for `localhost`.
    #[must_use]
    pub fn redis_tls() -> (Server, SocketAddr) {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(b"PING\r\n", b"", |directory, port| {
            address.set_port(free_port());
            let (certificate, key) = certify(directory);
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.args(["--tls-port", &address.port().to_string(), "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(&certificate).arg("--tls-key-file").arg(key);
            command.arg("--tls-ca-cert-file").arg(certificate).arg("--dir").arg(directory);
            command
        });
        (server, address)
    }

    /// `dovecot` with more settings, for `alice` and `bob`, whose password is `secret`, and `carol`, whose is
    /// [`PASSWORD`]. It is quick to let somebody try again who has been refused.
    #[must_use]
    pub fn dovecot(settings: &str) -> Server {
        Server::start(b"", b"* OK ", |directory, port| dovecot(directory, port, 0, &format!("ssl = no\n{settings}")))
    }

    /// The same with STARTTLS, and TLS on the port that is told, with a new certificate for `localhost`. At 127.0.0.2,
    /// where it takes clients for distant ones, nobody logs in in the clear.
    #[must_use]
    pub fn dovecot_tls() -> (Server, SocketAddr) {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(b"", b"* OK ", |directory, port| {
            address.set_port(free_port());
            let (certificate, key) = certify(directory);
            let settings = format!(
                "ssl = yes\nssl_cert = <{}\nssl_key = <{}\ndisable_plaintext_auth = yes\nlisten = 127.0.0.1, 127.0.0.2\n",
                certificate.display(),
                key.display()
            );
            dovecot(directory, port, address.port(), &settings)
        });
        (server, address)
    }

    /// The mailbox of a user of [`dovecot`](Self::dovecot).
    #[must_use]
    pub fn maildir(&self, user: &str) -> Maildir {
        Maildir { path: self.directory.path().join("home").join(user).join("Maildir"), owner: mail_owner() }
    }

    /// Has Dovecot's own agent deliver a message.
    pub fn deliver_by_agent(&self, user: &str, message: &str) {
        // Where Debian has it.
        let mut agent = Command::new("/usr/lib/dovecot/dovecot-lda");
        agent.arg("-c").arg(self.directory.path().join("dovecot.conf")).args(["-d", user]);
        let mut agent = agent.stdin(Stdio::piped()).spawn().unwrap();
        agent.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
        assert!(agent.wait().unwrap().success());
    }

    /// The certificate of [`redis_tls`](Self::redis_tls) and [`dovecot_tls`](Self::dovecot_tls).
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// `mpd` with two seconds of silence to play, as `tone.wav` and as `album/one.wav`, that one with a picture; and with
    /// more settings.
    #[must_use]
    pub fn mpd(settings: &str, picture: &[u8]) -> Server {
        Server::start(b"", b"OK MPD ", |directory, port| {
            let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
            fs::create_dir_all(path("music/album")).unwrap();
            fs::create_dir_all(path("playlists")).unwrap();
            fs::write(path("music/tone.wav"), silence()).unwrap();
            fs::write(path("music/album/one.wav"), silence()).unwrap();
            fs::write(path("music/album/cover.png"), picture).unwrap();
            let configuration = format!(
                "music_directory \"{}\"\nplaylist_directory \"{}\"\ndb_file \"{}\"\nstate_file \"{}\"\nlog_file \"{}\"\n\
                 bind_to_address \"127.0.0.1\"\nbind_to_address \"{}\"\nport \"{port}\"\nauto_update \"no\"\n\
                 audio_output {{\ntype \"null\"\nname \"null\"\nmixer_type \"software\"\n}}\n{settings}\n",
                path("music"),
                path("playlists"),
                path("db"),
                path("state"),
                path("log"),
                path("socket"),
            );
            fs::write(path("mpd.conf"), configuration).unwrap();
            let mut command = Command::new("mpd");
            command.arg("--no-daemon").arg(path("mpd.conf"));
            command
        })
    }

    /// Its scratch directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Starts it on a free port, and waits until it answers `question` in a way that begins so. Another process may take
    /// the port meanwhile: then it is started again.
    fn start(question: &'static [u8], answer: &'static [u8], mut command: impl FnMut(&Path, u16) -> Command) -> Server {
        for _ in 0..5 {
            let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
            let output = File::create(directory.path().join("output")).unwrap();
            let mut command = command(directory.path(), port);
            command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
            let process = spawn(&mut command);
            let address = (Ipv4Addr::LOCALHOST, port).into();
            let mut server = Server { process, command, ready: Ready { question, answer }, directory, address };
            if server.answers() {
                return server;
            }
        }
        panic!("no server starts");
    }

    /// Starts it again where it was, once it has ended: at the same address, with what it has on the disk.
    pub fn restart(&mut self) {
        let began = Instant::now();
        loop {
            assert!(self.process.try_wait().unwrap().is_some(), "it is still running");
            self.process = spawn(&mut self.command);
            if self.answers() {
                return;
            }
            // The other processes of one that was killed may hold its address for a moment.
            assert!(began.elapsed() < PATIENCE, "{}", self.output());
        }
    }

    fn answers(&mut self) -> bool {
        let Ready { question, answer } = self.ready;
        let began = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                let mut buffer = [0; 64];
                stream.write_all(question).unwrap();
                match stream.read(&mut buffer) {
                    Ok(octets) => return octets > 0 && buffer[..octets].starts_with(answer),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            assert!(began.elapsed() < PATIENCE, "{}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// What it printed, and what is in its log.
    fn output(&self) -> String {
        ["output", "log"].map(|name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()).concat()
    }

    /// Asks it to end, and waits until it has, with all its processes.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM).unwrap();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL).unwrap();
    }

    /// Has all its processes stand still. Sockets take what is sent to them all the same.
    pub fn freeze(&self) {
        self.send(Signal::STOP).unwrap();
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.send(Signal::CONT).unwrap();
    }

    /// Sends a signal to all its processes; whether they are a group of their own.
    fn send(&self, signal: Signal) -> io::Result<bool> {
        let id = Pid::from_child(&self.process);
        let has_group = getpgid(Some(id))? == id;
        if has_group { kill_process_group(id, signal) } else { kill_process(id, signal) }?;
        Ok(has_group)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let id = Pid::from_child(&self.process);
        let has_group = self.send(signal)?;
        self.process.wait()?;
        let began = Instant::now();
        // What is killed needs no time to end, only to be forgotten by the system.
        while has_group && signal != Signal::KILL && test_kill_process_group(id).is_ok() {
            if began.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        if let Ok(None) = self.process.try_wait() {
            let _ = self.signal(Signal::KILL);
        }
        if thread::panicking() {
            eprintln!("the server said:\n{}", self.output());
        }
    }
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{:?} is not installed: {error}", command.get_program()))
}

/// One that fits no quotes.
pub const PASSWORD: &str = r#"sésame "ouvre" \toi"#;

/// Dovecot with each session a process, all in a group of their own: its first process alone would leave them behind.
fn dovecot(directory: &Path, port: u16, tls_port: u16, settings: &str) -> Command {
    // It does not do all as root, and must find its way here.
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let (user, group) = mail_owner();
    let mut users = String::new();
    for (name, password) in [("alice", "secret"), ("bob", "secret"), ("carol", PASSWORD)] {
        let home = path(&format!("home/{name}"));
        users += &format!("{name}:{{PLAIN}}{password}:{user}:{group}::{home}::\n");
        for part in ["", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"] {
            let part = Path::new(&home).join(part);
            fs::create_dir_all(&part).unwrap();
            chown(part, Some(user), Some(group)).unwrap();
        }
    }
    fs::write(path("users"), users).unwrap();
    let ours = match id(&["-u"]).as_str() {
        "0" => String::new(),
        _ => format!(
            "default_internal_user = {0}\ndefault_login_user = {0}\ndefault_internal_group = {1}\n",
            id(&["-un"]),
            id(&["-gn"])
        ),
    };
    let configuration = format!(
        "base_dir = {run}\nstate_dir = {run}\nlog_path = {log}\nprotocols = imap\nlisten = 127.0.0.1\n\
         disable_plaintext_auth = no\nauth_failure_delay = 0\nauth_mechanisms = plain login\n\
         mail_location = maildir:~/Maildir\nmail_max_userip_connections = 100\nfirst_valid_uid = 1\n{ours}\
         service anvil {{\nchroot =\nunix_listener anvil-auth-penalty {{\nmode = 0\n}}\n}}\n\
         service imap-login {{\nchroot =\ninet_listener imap {{\nport = {port}\n}}\n\
         inet_listener imaps {{\nport = {tls_port}\n}}\n}}\n\
         passdb {{\ndriver = passwd-file\nargs = {users}\n}}\nuserdb {{\ndriver = passwd-file\nargs = {users}\n}}\n\
         {settings}\n",
        run = path("run"),
        log = path("log"),
        users = path("users"),
    );
    fs::write(path("dovecot.conf"), configuration).unwrap();
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(path("dovecot.conf")).process_group(0);
    command
}

/// Whose the mail is: ours, or of a user whom Dovecot accepts where we are root.
fn mail_owner() -> (u32, u32) {
    let whose: &[&str] = if id(&["-u"]) == "0" { &["mail"] } else { &[] };
    (id(&[&["-u"], whose].concat()).parse().unwrap(), id(&[&["-g"], whose].concat()).parse().unwrap())
}

fn id(arguments: &[&str]) -> String {
    let output = Command::new("id").args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where the mail of a user is.
#[derive(Clone, Debug)]
pub struct Maildir {
    path: PathBuf,
    owner: (u32, u32),
}

impl Maildir {
    /// A mailbox of this name beside the inbox, made if it is not there.
    #[must_use]
    pub fn mailbox(&self, name: &str) -> Maildir {
        let path = self.path.join(format!(".{name}"));
        for part in ["", "cur", "new", "tmp"] {
            let part = path.join(part);
            fs::create_dir_all(&part).unwrap();
            chown(part, Some(self.owner.0), Some(self.owner.1)).unwrap();
        }
        Maildir { path, owner: self.owner }
    }

    /// The names of the mailboxes beside the inbox.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<String> {
        let names = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| Some(name.strip_prefix('.')?.to_owned())).collect()
    }

    /// Removes a mailbox, whatever is in it, also while the server still makes it.
    pub fn remove(&self, name: &str) {
        let (path, began) = (self.path.join(format!(".{name}")), Instant::now());
        while let Err(error) = fs::remove_dir_all(&path) {
            match error.kind() {
                ErrorKind::NotFound => return,
                ErrorKind::DirectoryNotEmpty if began.elapsed() < PATIENCE => {}
                _ => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Delivers a message: it appears as a whole.
    pub fn deliver(&self, message: &str) {
        let name = self.write("tmp", "", message);
        fs::rename(self.path.join("tmp").join(&name), self.path.join("new").join(name)).unwrap();
    }

    /// Puts messages there that are not recent, in this order, before anybody has looked.
    pub fn fill(&self, messages: impl IntoIterator<Item = String>) {
        for message in messages {
            self.write("cur", ":2,", &message);
        }
    }

    fn write(&self, part: &str, flags: &str, message: &str) -> String {
        static LAST: AtomicU32 = AtomicU32::new(1_000_000_000);
        let name = format!("{}.live{flags}", LAST.fetch_add(1, Ordering::Relaxed));
        let path = self.path.join(part).join(&name);
        fs::write(&path, message).unwrap();
        chown(path, Some(self.owner.0), Some(self.owner.1)).unwrap();
        name
    }
}

/// A new certificate for `localhost`, and its key.
fn certify(directory: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Two seconds of it, as a WAV file: 8,000 samples a second, 16 bits each, one channel.
fn silence() -> Vec<u8> {
    const OCTETS: u32 = 2 * 8_000 * 2;
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + OCTETS).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16_u32.to_le_bytes());
    wav.extend_from_slice(&[1, 0, 1, 0]);
    wav.extend_from_slice(&8_000_u32.to_le_bytes());
    wav.extend_from_slice(&16_000_u32.to_le_bytes());
    wav.extend_from_slice(&[2, 0, 16, 0]);
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&OCTETS.to_le_bytes());
    wav.resize(wav.len() + OCTETS as usize, 0);
    wav
}
