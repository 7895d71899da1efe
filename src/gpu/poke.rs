//! Firefox looks ten times a second whether a buffer is mapped: a wait takes 100 ms whatever the device does. It looks at
//! every submission, too, be it an empty one.
use super::Gpu;
use js_sys::{Function, Promise, Reflect};
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    // Of pages and of workers alike.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(call: &Function, ms: i32) -> JsValue;
}

/// Milliseconds from one poke to the next; Firefox makes four of one.
const EVERY: i32 = 1;

/// Waits for what a browser tells, and pokes it where that helps.
pub(super) async fn until<T>(gpu: &Gpu, told: impl Future<Output = T>) -> T {
    let mut told = pin!(told);
    static IN_FIREFOX: OnceLock<bool> = OnceLock::new();
    if !*IN_FIREFOX.get_or_init(in_firefox) {
        return told.await;
    }
    loop {
        let mut timer = JsFuture::from(Promise::new(&mut |resolve, _| {
            set_timeout(&resolve, EVERY);
        }));
        let heard = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = told.as_mut().poll(context) {
                return Poll::Ready(Some(result));
            }
            std::pin::Pin::new(&mut timer).poll(context).map(|_| None)
        });
        match heard.await {
            Some(result) => return result,
            None => _ = gpu.queue.submit([]),
        }
    }
}

fn in_firefox() -> bool {
    let get = |of: &JsValue, key: &str| Reflect::get(of, &key.into()).unwrap_or_default();
    let agent = get(&get(&js_sys::global(), "navigator"), "userAgent");
    agent.as_string().is_some_and(|agent| agent.contains("Firefox/"))
}
