//! Connections: taken, served, bounded, and brought to their end.
use super::app::App;
use super::guard::{Guard, cors, guard};
use super::routes::router;
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// A connection on which nothing comes is closed after so long.
const IDLE: Duration = Duration::from_secs(75);
/// The head of a request has so many bytes at most.
const HEAD: usize = 16 << 10;
/// Connections at a time.
const CONNECTIONS: usize = 1024;

pub(super) fn service(app: Arc<App>, rules: Guard) -> Router {
    let rules = Arc::new(rules);
    let guarded =
        router().layer(Extension(rules.clone())).layer(from_fn_with_state(rules.clone(), guard));
    guarded.layer(cors(&rules)).with_state(app)
}

/// Serves until the signal to end, and until what is under way is done, or so long.
pub(super) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    rules: Guard,
    ends: Arc<AtomicBool>,
    grace: Duration,
) {
    let service = service(app.clone(), rules);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let closing = watch::Sender::new(false);
    let mut end = pin!(signalled(app.clone(), ends, grace));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, say: that passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Pieces of an answer are small, and wanted at once.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()))
            .with_upgrades();
        let mut closes = closing.subscribe();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // What goes wrong on a connection is its client's to see.
            tokio::select! {
                _ = &mut connection => {}
                () = closes.wait_for(|closes| *closes).map(drop) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(permit);
        });
    }
    // What has been answered is still to be sent.
    closing.send_replace(true);
    let all = connections.acquire_many(CONNECTIONS as u32);
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
}

/// Comes back when the server has been told to end, and all that is under way has come to its end, or was ended after a
/// time. A second signal ends it at once.
async fn signalled(app: Arc<App>, ends: Arc<AtomicBool>, grace: Duration) {
    tokio::select! {
        () = signal() => {}
        () = left(&app) => {}
    }
    app.ending.store(true, Relaxed);
    app.over.send_replace(true);
    if is_busy(&app) {
        let seconds = grace.as_secs();
        eprintln!("brooklet: ending when what is under way is done, in {seconds} seconds at most");
    }
    tokio::select! {
        () = idle(&app) => return,
        () = tokio::time::sleep(grace) => {}
        () = signal() => {}
    }
    ends.store(true, Relaxed);
    tokio::select! {
        () = idle(&app) => {}
        () = signal() => std::process::exit(1),
    }
}

/// Comes back when the last page has left, where that is the end; a page that is loaded anew is back before.
async fn left(app: &App) {
    let Some(until) = app.until else { return std::future::pending().await };
    let mut count = app.sockets.count.subscribe();
    let come = |count: &usize| *count > 0;
    if tokio::time::timeout(until.first, count.wait_for(come)).await.is_err() {
        eprintln!("brooklet: no page has come, so this ends");
        return;
    }
    loop {
        if count.wait_for(|count| *count == 0).await.is_err()
            || tokio::time::timeout(until.back, count.wait_for(come)).await.is_err()
        {
            return;
        }
    }
}

fn is_busy(app: &App) -> bool {
    app.metrics.processing.load(Relaxed) + app.metrics.deferred.load(Relaxed) > 0
}

/// Until nothing is under way.
async fn idle(app: &App) {
    while is_busy(app) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// SIGINT or SIGTERM; on other systems Ctrl-C.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let heard = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        if let (Ok(mut interrupt), Ok(mut terminate)) = heard {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
