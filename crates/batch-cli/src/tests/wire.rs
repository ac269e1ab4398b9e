//! Holds: a fake of the network between a command and its server: it can be cut, and it can lose an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    cut: Notify,
    /// Answers that arrive before any is lost.
    spared: AtomicUsize,
    /// Answers that do not arrive.
    losses: AtomicUsize,
    connections: AtomicUsize,
}

/// Ends with the runtime of its test.
pub(super) struct Wire {
    pub(super) base: String,
    state: Arc<State>,
}

impl Wire {
    pub(super) async fn to(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::task::spawn_local(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if !shared.is_cut.load(Ordering::SeqCst) {
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::task::spawn_local(forward(client, server, Arc::clone(&shared)));
                }
            }
        });
        Self { base, state }
    }

    /// Every connection breaks, and none can be made until it is mended.
    pub(super) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        self.state.cut.notify_waiters();
    }

    pub(super) fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// After those that are spared, answers are received and thrown away, with their connections.
    pub(super) fn lose(&self, spared: usize, answers: usize) {
        self.state.spared.store(spared, Ordering::SeqCst);
        self.state.losses.store(answers, Ordering::SeqCst);
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, state: Arc<State>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut up, mut down) = (vec![0; 16_384], vec![0; 16_384]);
    let cut = state.cut.notified();
    tokio::pin!(cut);
    loop {
        tokio::select! {
            () = &mut cut => return,
            read = client.read(&mut up) => match read {
                Ok(read) if read > 0 => if server.write_all(&up[..read]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut down) => {
                let less = |left: usize| left.checked_sub(1);
                let is_spared = state.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
                let is_lost = !is_spared && state.losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
                match read {
                    Ok(read) if read > 0 && !is_lost => {
                        if client.write_all(&down[..read]).await.is_err() { return }
                    }
                    _ => return,
                }
            }
        }
    }
}
