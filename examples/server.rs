//! An echo server whose whole state is a graph on the heap, under load over loopback. How long do
//! requests take while the collector runs beside them?
//!
//! ```text
//! cargo run --release --example server -- --self-test 10
//! ```
//!
//! ```text
//!   Site ──> [Route, Route, ..]              shared by all, and never changes
//!    |
//!    ├──> [Page, Page, ..]                   cells: what was answered, until another takes its place
//!    |
//!    └──> open: GcLock<HashMap<_, Connection>>
//!                                   |  ^
//!                                   v  |     a ring: the last requests of this connection, each of
//!                                 Request    which knows its connection, its route and its page
//! ```
//!
//! Each connection is a G. Across an `.await` it has a `Root` of its connection, and buffers
//! outside the heap. It works on the heap inside `with`.
//!
//! The other side, a second process, sends texts and checks the answers: the text, how many texts
//! there were on this connection, and the checksum of the last ones, which the server computes by a
//! walk over the ring of requests.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use greywave::net::{TcpListener, TcpStream};
use greywave::{
    Gc, GcCell, GcLock, Heap, Mutator, Root, Runtime, Trace, blocking, go, sleep, with,
};

mod common;
use common::args::{self, Args, UsageError};
use common::http::{self, Message, Messages};
use common::report::{self, Bytes, Latency, Nanos, say};
use common::rng::{Rng, mix};
use common::words::{Words, checksum};

const USAGE: &str = "usage: server --listen ADDR [--seconds N] [--procs N]
       server --load ADDR [--seconds N] [--connections N] [--rate N] [--procs N]
       server --self-test N [--connections N] [--rate N] [--procs N]
  --listen ADDR    serve there, such as 127.0.0.1:8080
  --load ADDR      send requests there, and check the answers
  --self-test N    serve, start a process that sends, for N seconds, 1 to 86400
  --seconds N      how long, 1 to 86400 (default: 10 for --load, for ever for --listen)
  --connections N  at a time, 1 to 100000 (default 100)
  --rate N         requests a second in all, up to 10000000; 0 (the default): one after another
  --procs N        workers, 1 to 1024 (default: one for each processor)";

/// Requests that a connection remembers.
const HISTORY: usize = 16;
/// Places for pages.
const PAGES: usize = 50_000;
/// Texts that are sent; each has a page on each route.
const TEXTS: usize = 16_384;
/// Where texts may be sent.
const ROUTES: [&str; 4] = ["/echo", "/news", "/notes", "/poems"];

/// All that the server knows.
#[derive(Trace)]
struct Site<'gc> {
    routes: Gc<'gc, [Route<'gc>]>,
    pages: Gc<'gc, [GcCell<'gc, Page<'gc>>]>,
    open: GcLock<HashMap<u64, Gc<'gc, Connection<'gc>>>>,
}

/// A place on the site.
#[derive(Trace)]
struct Route<'gc> {
    path: Gc<'gc, str>,
    asked: AtomicU64,
}

/// What was once answered.
#[derive(Trace)]
struct Page<'gc> {
    text: Gc<'gc, str>,
    sum: u64,
}

/// An open connection.
#[derive(Trace)]
struct Connection<'gc> {
    site: Gc<'gc, Site<'gc>>,
    number: u64,
    /// The request of number n is at n modulo [`HISTORY`].
    history: Gc<'gc, [GcCell<'gc, Request<'gc>>]>,
    requests: AtomicU64,
}

/// What was asked, and where it came from.
#[derive(Trace)]
struct Request<'gc> {
    connection: Gc<'gc, Connection<'gc>>,
    route: Gc<'gc, str>,
    page: Gc<'gc, Page<'gc>>,
    number: u64,
}

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    /// Requests a second in all; 0: the next one follows the answer.
    pub(crate) rate: u64,
    pub(crate) procs: Option<usize>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    pub(crate) latency: Latency,
}

fn main() -> ExitCode {
    args::main(USAGE, |mut args| {
        let (listen, load) = (args.text("--listen"), args.text("--load"));
        let test_seconds: u64 = args.number("--self-test", 0, 1..=86_400)?;
        let seconds: u64 = args.number("--seconds", 0, 1..=86_400)?;
        let mut options = parse(args)?;
        match (listen, load, test_seconds) {
            (Some(at), None, 0) => serve_at(at.parse()?, seconds, options),
            (None, Some(at), 0) => {
                options.time = Duration::from_secs(if seconds == 0 { 10 } else { seconds });
                let outcome = send(&Heap::builder().build()?, at.parse()?, options)?;
                summary(options, &outcome);
                Ok(())
            }
            (None, None, 1..) => {
                options.time = Duration::from_secs(test_seconds);
                let heap = Heap::builder().build()?;
                self_test(&heap, options, move |at| send_from_a_process(at, options))?;
                say(report::collector(&heap.stats()));
                Ok(())
            }
            _ => Err(UsageError::new("one of --listen, --load and --self-test is needed").into()),
        }
    })
}

fn parse(mut args: Args) -> Result<Load, Box<dyn Error>> {
    let procs = args.number("--procs", 0, 1..=1024)?;
    let load = Load {
        connections: args.number("--connections", 100, 1..=100_000)?,
        time: Duration::ZERO,
        rate: args.number("--rate", 0, 0..=10_000_000)?,
        procs: (procs != 0).then_some(procs),
    };
    args.words(0..=0)?;
    Ok(load)
}

fn runtime(heap: &Heap, procs: Option<usize>) -> Result<Runtime, Box<dyn Error>> {
    let builder = Runtime::builder(heap);
    Ok(match procs {
        Some(procs) => builder.procs(procs).build()?,
        None => builder.build()?,
    })
}

/// Serves for so many seconds, or for ever if that is 0.
fn serve_at(at: SocketAddr, seconds: u64, options: Load) -> Result<(), Box<dyn Error>> {
    let heap = Heap::builder().build()?;
    let runtime = runtime(&heap, options.procs)?;
    let end = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
    runtime.block_on(async move {
        let listener = TcpListener::bind(at)?;
        say(format_args!("serving at {}", listener.local_addr()?));
        let server = Server::new();
        let accepting = go(server.clone().accept(listener));
        while end.is_none_or(|end| Instant::now() < end) {
            sleep(Duration::from_secs(1)).await;
            server.say_how_it_goes();
        }
        accepting.abort();
        Ok::<_, io::Error>(())
    })??;
    say(report::collector(&heap.stats()));
    Ok(())
}

/// Serves while `send` sends, and checks that both saw the same.
pub(crate) fn self_test(
    heap: &Heap,
    options: Load,
    send: impl FnOnce(SocketAddr) -> Result<u64, String> + Send + 'static,
) -> Result<u64, Box<dyn Error>> {
    let runtime = runtime(heap, options.procs)?;
    let (answered, sent) = runtime.block_on(async move {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let at = listener.local_addr()?;
        let server = Server::new();
        let accepting = go(server.clone().accept(listener));
        let sent = blocking(move || send(at)).await;
        // The last connections may be closed by the other side and not yet by this one.
        while server.open() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        accepting.abort();
        Ok::<_, io::Error>((server.answered(), sent))
    })??;
    let sent = sent?;
    if answered != sent {
        return Err(format!("{answered} requests were answered, but {sent} sent").into());
    }
    heap.verify()?;
    Ok(answered)
}

/// Runs this program a second time, to send.
fn send_from_a_process(at: SocketAddr, options: Load) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.stderr(Stdio::inherit());
    command.args(["--load", &at.to_string()]);
    command.args(["--seconds", &options.time.as_secs().to_string()]);
    command.args(["--connections", &options.connections.to_string()]);
    command.args(["--rate", &options.rate.to_string()]);
    if let Some(procs) = options.procs {
        command.args(["--procs", &procs.to_string()]);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    say(text.trim_end());
    let first = text.split_whitespace().next();
    match first.and_then(|count| count.parse().ok()) {
        Some(sent) if output.status.success() => Ok(sent),
        _ => Err(format!(
            "the process that sends ended with {}",
            output.status
        )),
    }
}

/// The server: a handle to its state.
#[derive(Clone)]
struct Server {
    site: Root<Site<'static>>,
    answered: Arc<AtomicU64>,
}

impl Server {
    fn new() -> Self {
        let site = with(|m| {
            let routes = m.alloc_slice(ROUTES.len(), |i| Route {
                path: m.alloc_str(ROUTES[i]),
                asked: AtomicU64::new(0),
            });
            let pages = m.alloc_slice(PAGES, |_| GcCell::null());
            let open = GcLock::new(HashMap::new());
            m.root(m.alloc(Site {
                routes,
                pages,
                open,
            }))
        });
        let answered = Arc::new(AtomicU64::new(0));
        Self { site, answered }
    }

    /// Takes connections until it is aborted; each one is a G.
    async fn accept(self, listener: TcpListener) -> io::Result<()> {
        for number in 0.. {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = self.clone();
            let _detached = go(async move {
                let visit = Visit::new(&server.site, number);
                // An error is the other side's: it is gone.
                let _ = visit.serve(stream, &server.answered).await;
            });
        }
        Ok(())
    }

    fn answered(&self) -> u64 {
        // Relaxed: read when all who count are done, or for people.
        self.answered.load(Ordering::Relaxed)
    }

    fn open(&self) -> usize {
        with(|m| self.site.get(m).open.read().len())
    }

    fn say_how_it_goes(&self) {
        let stats = with(|m| m.heap().stats());
        say(format_args!(
            "{:>6} open  {:>10} answered  heap {:>9} of {:>9}  {:>4} cycles  longest pause {:>8}",
            self.open(),
            self.answered(),
            Bytes(stats.heap_bytes),
            Bytes(stats.goal_bytes),
            stats.cycles,
            Nanos(stats.pauses.max_ns),
        ));
    }
}

/// A connection that is open as long as this lives.
struct Visit(Root<Connection<'static>>);

impl Visit {
    fn new(site: &Root<Site<'static>>, number: u64) -> Self {
        Self(with(|m| {
            let site = site.get(m);
            let connection = m.alloc(Connection {
                site,
                number,
                history: m.alloc_slice(HISTORY, |_| GcCell::null()),
                requests: AtomicU64::new(0),
            });
            site.open.write(m).insert(number, connection);
            m.root(connection)
        }))
    }

    async fn serve(&self, mut stream: TcpStream, answered: &AtomicU64) -> io::Result<()> {
        let (mut messages, mut answer) = (Messages::new(), Vec::new());
        while receive(&mut stream, &mut messages).await? {
            answer.clear();
            if let Err(what) = self.answer(&messages.first()?, &mut answer) {
                http::write(
                    &mut answer,
                    "HTTP/1.1 400 Bad Request",
                    &[],
                    what.as_bytes(),
                );
                return stream.write_all(&answer).await;
            }
            messages.forget_first();
            // Relaxed: a count.
            answered.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&answer).await?;
        }
        Ok(())
    }

    /// All that happens on the heap for one request. No await, so pointers may be held here.
    fn answer(&self, message: &Message<'_>, to: &mut Vec<u8>) -> Result<(), &'static str> {
        let path = message.start.split(' ').nth(1).ok_or("no path")?;
        let text = str::from_utf8(message.body).map_err(|_| "not UTF-8")?;
        with(|m| {
            let connection = self.0.get(m);
            let mut routes = connection.site.routes.iter();
            let route = routes
                .find(|route| &*route.path == path)
                .ok_or("no such path")?;
            // Relaxed: a count.
            route.asked.fetch_add(1, Ordering::Relaxed);
            let page = page(m, connection.site, route, text);
            let number = connection.remember(m, connection, route, page);
            let heads = [("Number", number), ("Sum", connection.sum(number)?)];
            http::write(to, "HTTP/1.1 200 OK", &heads, page.text.as_bytes());
            Ok(())
        })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        with(|m| {
            let connection = self.0.get(m);
            // What is left is a cycle: each request names its connection.
            connection.site.open.write(m).remove(&connection.number);
        });
    }
}

/// Reads until a message is whole. False: the other side has closed the connection instead.
async fn receive(stream: &mut TcpStream, messages: &mut Messages) -> io::Result<bool> {
    while !messages.is_whole()? {
        match stream.read(messages.room()).await? {
            0 if messages.is_empty() => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => messages.filled(count),
        }
    }
    Ok(true)
}

/// The page for a text on a route: the one from before, if nothing else has taken its place.
fn page<'m>(
    m: &'m Mutator,
    site: Gc<'m, Site<'m>>,
    route: &Route<'m>,
    text: &str,
) -> Gc<'m, Page<'m>> {
    let sum = checksum(text);
    let place = &site.pages[(mix(sum ^ checksum(&route.path)) % PAGES as u64) as usize];
    if let Some(page) = place.get().filter(|page| &*page.text == text) {
        return page;
    }
    let text = m.alloc_str(text);
    let page = m.alloc(Page { text, sum });
    place.set(m, page);
    page
}

impl<'gc> Connection<'gc> {
    /// Puts a request into the ring. Gives its number, from 1.
    fn remember(
        &self,
        m: &'gc Mutator,
        connection: Gc<'gc, Self>,
        route: &Route<'gc>,
        page: Gc<'gc, Page<'gc>>,
    ) -> u64 {
        // Relaxed: only this connection's G counts here.
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let request = m.alloc(Request {
            connection,
            route: route.path,
            page,
            number,
        });
        self.history[number as usize % HISTORY].set(m, request);
        number
    }

    /// The sum of the last requests up to `newest`: the ring is what it should be, or an error.
    fn sum(&self, newest: u64) -> Result<u64, &'static str> {
        let mut sum = 0;
        for number in newest.saturating_sub(HISTORY as u64 - 1).max(1)..=newest {
            let request = self.history[number as usize % HISTORY].get();
            let request = request.ok_or("a request is missing")?;
            let is_ours = request.connection.number == self.number && request.number == number;
            if !is_ours || checksum(&request.page.text) != request.page.sum {
                return Err("a request is not what it was");
            }
            sum = add(sum, &request.route, request.page.sum);
        }
        Ok(sum)
    }
}

/// Adds a request to the sum of those before it.
fn add(sum: u64, path: &str, text_sum: u64) -> u64 {
    mix(sum ^ text_sum ^ checksum(path))
}

/// Sends, and checks what comes back.
pub(crate) fn send(heap: &Heap, at: SocketAddr, options: Load) -> Result<Outcome, Box<dyn Error>> {
    let runtime = runtime(heap, options.procs)?;
    let outcome = runtime.block_on(async move {
        let start = Instant::now();
        let senders: Vec<_> = (0..options.connections)
            .map(|number| go(Client::run(at, options, number, start)))
            .collect();
        let mut latency = Latency::new();
        for sender in senders {
            let mine = sender.await.map_err(|error| error.to_string())?;
            latency.add(&mine?);
        }
        let time = start.elapsed();
        Ok::<_, String>(Outcome { time, latency })
    })??;
    Ok(outcome)
}

/// One connection of the side that sends.
struct Client {
    stream: TcpStream,
    answers: Messages,
    rng: Rng,
    texts: Words,
    /// What was sent last: path and sum of the text.
    history: Vec<(usize, u64)>,
    sent: u64,
}

impl Client {
    async fn run(
        at: SocketAddr,
        options: Load,
        number: usize,
        start: Instant,
    ) -> Result<Latency, String> {
        let stream = TcpStream::connect(at).await.map_err(|it| it.to_string())?;
        stream.set_nodelay(true).map_err(|it| it.to_string())?;
        let texts = Words::new(&mut Rng::new(1, 0));
        let mut client = Self {
            stream,
            answers: Messages::new(),
            rng: Rng::new(1, 1 + number as u64),
            texts,
            history: Vec::new(),
            sent: 0,
        };
        let mut latency = Latency::new();
        let mut clock = Clock::new(options, number, start);
        while let Some(begin) = clock.next().await {
            client.ask().await?;
            latency.record(begin.elapsed());
        }
        Ok(latency)
    }

    /// Sends one of the texts somewhere, and checks the answer.
    async fn ask(&mut self) -> Result<(), String> {
        let route = self.rng.below(ROUTES.len());
        let text = self
            .texts
            .next(&mut Rng::new(2, self.rng.below(TEXTS) as u64));
        let mut request = Vec::with_capacity(512);
        let start = format!("POST {} HTTP/1.1", ROUTES[route]);
        http::write(&mut request, &start, &[], text.as_bytes());
        let failed = |error: io::Error| format!("a request failed: {error}");
        self.stream.write_all(&request).await.map_err(failed)?;
        self.sent += 1;
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push((route, checksum(text)));

        if !receive(&mut self.stream, &mut self.answers)
            .await
            .map_err(failed)?
        {
            return Err("the server closed the connection".to_owned());
        }
        let answer = self.answers.first().map_err(failed)?;
        if !answer.start.ends_with("200 OK") {
            let body = String::from_utf8_lossy(answer.body);
            return Err(format!("the server says {}: {body}", answer.start));
        }
        if answer.body != text.as_bytes() {
            return Err("the answer is not the text".to_owned());
        }
        let history = self.history.iter();
        let sum = history.fold(0, |sum, &(route, text)| add(sum, ROUTES[route], text));
        for (name, expected) in [("Number", self.sent), ("Sum", sum)] {
            if answer.number(name) != Some(expected) {
                return Err(format!(
                    "{name} is not {expected}, for request {}",
                    self.sent
                ));
            }
        }
        self.answers.forget_first();
        Ok(())
    }
}

/// When the requests of one connection begin.
struct Clock {
    end: Instant,
    next: Instant,
    /// None: at once.
    every: Option<Duration>,
}

impl Clock {
    fn new(options: Load, number: usize, start: Instant) -> Self {
        let connections = options.connections as u32;
        let every =
            (options.rate > 0).then(|| Duration::from_secs(1) * connections / options.rate as u32);
        // They begin evenly spread.
        let offset = every.map_or(Duration::ZERO, |every| every * number as u32 / connections);
        Self {
            end: start + options.time,
            next: start + offset,
            every,
        }
    }

    /// Waits for the time of the next one. That is what its latency counts from, and not from when
    /// it was sent: one that could not be sent in time was held up by the ones before it.
    async fn next(&mut self) -> Option<Instant> {
        let Some(every) = self.every else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        let begin = self.next;
        if begin >= self.end {
            return None;
        }
        self.next += every;
        let early = begin.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            sleep(early).await;
        }
        Some(begin)
    }
}

fn summary(options: Load, outcome: &Outcome) {
    let requests = outcome.latency.count();
    let rate = requests as f64 / outcome.time.as_secs_f64();
    say(format_args!(
        "{requests} requests on {} connections, {rate:.0} a second\n  latency            {}",
        options.connections, outcome.latency
    ));
}
