//! The routes, and what of them needs no stream.
use super::app::{App, Ready};
use super::body;
use super::fields::Fields;
use super::job::Work;
use super::messages::Messages;
use super::page;
use super::problem::Problem;
use super::replies;
use super::request::Ask;
use super::shapes::{Head, Kind};
use super::socket;
use axum::Json;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use brooklet::chat::encoded;
use brooklet::text::{Conversation, Detokenizer, Renderer};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

type Told = Result<Response, Problem>;
type Server = State<Arc<App>>;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page::index))
        .route("/v1/engine", get(socket::attach))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .route("/props", get(props))
        .route("/slots", get(slots))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
}

async fn nowhere(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let file = page::respond(path, request.headers()).filter(|_| *method == Method::GET);
    file.unwrap_or_else(|| no_route(path).into_response())
}

fn no_route(path: &str) -> Problem {
    let why = format!("{path} is no route of this server; docs/server.md lists them");
    Problem::new(StatusCode::NOT_FOUND, why)
}

async fn not_so(request: Request) -> Problem {
    let why =
        format!("{} {}: this method does not work here", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
}

/// Runs what may take a while where it holds up nobody.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be read");
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

async fn chat(State(app): Server, request: Request) -> Told {
    answered(app, request, Kind::Chat).await
}

async fn completion(State(app): Server, request: Request) -> Told {
    answered(app, request, Kind::Text).await
}

async fn answered(app: Arc<App>, request: Request, kind: Kind) -> Told {
    app.takes()?.queue.expect_room()?;
    let body = body::read(request).await?;
    let of = app.clone();
    let (ask, work, echo, terms) = apart(move || {
        let ready = of.takes()?;
        let fields = Fields::parse(&body)?;
        let ask = Ask::read(&fields, &ready.answer, ready.queue.streams)?;
        let (work, echo) = match kind {
            Kind::Chat => (ready.asked(&fields)?, None),
            Kind::Text => text(ready, &fields)?,
        };
        let terms = (0..ask.n).map(|_| ready.terms(&ask, &work)).collect::<Result<Vec<_>, _>>()?;
        Ok((ask, work, echo, terms))
    })
    .await?;
    let ready = app.takes()?;
    let answers = ready.seeded(&ask.answer, ask.seed, ask.n);
    let answers = answers.into_iter().zip(terms).collect();
    let answers = ready.queue.ask(&work, answers, ask.cache)?;
    let model = ask.model.unwrap_or_else(|| ready.name.clone());
    let head = Head::new(kind, model, echo, ready.tokenizer.clone());
    match ask.stream {
        true => replies::streamed(head, answers, ask.include_usage, app.keep_alive).await,
        false => replies::whole(head, answers).await,
    }
}

/// A text that is gone on with, and the same again where the answer is to begin with it.
fn text(ready: &Ready, fields: &Fields) -> Result<(Work, Option<String>), Problem> {
    let wrong = |why: &str| Problem::field("prompt", why);
    let one = "a text is wanted, or a list of ids; of several texts one at a time";
    let (ids, text) = match fields.get("prompt") {
        Some(Value::String(text)) => (ready.tokenizer.encode_first(text)?, text.clone()),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(text)] => (ready.tokenizer.encode_first(text)?, text.clone()),
            _ if list.iter().all(Value::is_u64) => {
                let ids = fields.ids("prompt", ready.about.n_vocab)?.unwrap_or_default();
                let text = detokenized(ready, &ids);
                (ids, text)
            }
            _ => return Err(wrong(one)),
        },
        _ => return Err(wrong(one)),
    };
    if ids.is_empty() {
        return Err(wrong("it is empty, and the model names no first token"));
    }
    let echo = fields.flag("echo")?.unwrap_or(false);
    Ok((Work::Text(Arc::new(ids)), echo.then_some(text)))
}

fn object_of(ready: &Ready) -> Value {
    let about = &ready.about;
    json!({
        "id": ready.name,
        "object": "model",
        "created": ready.since,
        "owned_by": "brooklet",
        "meta": {
            "n_vocab": about.n_vocab,
            "n_ctx_train": about.n_ctx_train,
            "n_embd": about.n_embd,
            "n_params": about.n_params,
            "size": about.size,
        },
    })
}

async fn models(State(app): Server) -> Told {
    Ok(Json(json!({ "object": "list", "data": [object_of(app.ready()?)] })).into_response())
}

async fn model(State(app): Server, Path(id): Path<String>) -> Told {
    let ready = app.ready()?;
    match id == ready.name {
        true => Ok(Json(object_of(ready)).into_response()),
        false => {
            let why = format!("the model {id:?} is not here; {:?} is", ready.name);
            Err(Problem::new(StatusCode::NOT_FOUND, why).coded("model_not_found"))
        }
    }
}

async fn health(State(app): Server) -> Told {
    app.takes()?;
    Ok(Json(json!({ "status": "ok" })).into_response())
}

async fn metrics(State(app): Server) -> Response {
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text())
        .into_response()
}

async fn props(State(app): Server) -> Told {
    let ready = app.ready()?;
    let (cache, sampling) = (&ready.cache, &ready.answer.sampling);
    let capacity = cache.sinks + cache.window;
    let template = ready.template.as_ref().map_or("", |template| template.source());
    Ok(Json(json!({
        "default_generation_settings": {
            "n_ctx": capacity,
            "params": {
                "n_predict": ready.answer.tokens,
                "temperature": as_written(sampling.temperature),
                "top_k": sampling.top_k,
                "top_p": as_written(sampling.top_p),
                "min_p": as_written(sampling.min_p),
                "repeat_penalty": as_written(sampling.repeat_penalty),
                "repeat_last_n": sampling.penalty_last_n,
                "presence_penalty": as_written(sampling.presence_penalty),
                "frequency_penalty": as_written(sampling.frequency_penalty),
            },
        },
        "total_slots": ready.views.len(),
        "model_alias": ready.name,
        "model_path": ready.path,
        "chat_template": template,
        "bos_token": piece(ready, ready.tokenizer.bos()),
        "eos_token": piece(ready, ready.tokenizer.eos()),
        "modalities": { "vision": false, "audio": false },
        "build_info": concat!("brooklet-", env!("CARGO_PKG_VERSION")),
        "cache": { "policy": cache.policy, "sinks": cache.sinks, "window": cache.window, "kv": cache.kv },
    }))
    .into_response())
}

/// A number with no more digits than it was written with.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn piece(ready: &Ready, id: Option<u32>) -> &str {
    id.map_or("", |id| ready.tokenizer.piece(id))
}

async fn slots(State(app): Server) -> Told {
    let ready = app.ready()?;
    let (sinks, window) = (ready.cache.sinks, ready.cache.window);
    let slot = |view: &std::sync::Mutex<super::slots::View>| {
        let mut slot = json!(view.lock().unwrap_or_else(PoisonError::into_inner).clone());
        slot["n_ctx"] = (sinks + window).into();
        slot["sinks"] = sinks.into();
        slot["window"] = window.into();
        slot
    };
    Ok(Json(ready.views.iter().map(slot).collect::<Value>()).into_response())
}

async fn tokenize(State(app): Server, request: Request) -> Told {
    let body = body::read(request).await?;
    apart(move || {
        let (ready, fields) = (app.ready()?, Fields::parse(&body)?);
        let wanted = || Problem::field("content", "a text is wanted");
        let text = fields.text("content")?.ok_or_else(wanted)?;
        let ids = ready.tokenizer.encode(text, fields.flag("add_special")?.unwrap_or(false))?;
        let tokens: Value = match fields.flag("with_pieces")?.unwrap_or(false) {
            true => ids
                .iter()
                .map(|&id| json!({ "id": id, "piece": ready.tokenizer.piece(id) }))
                .collect(),
            false => ids.into(),
        };
        Ok(Json(json!({ "tokens": tokens })).into_response())
    })
    .await
}

async fn detokenize(State(app): Server, request: Request) -> Told {
    let body = body::read(request).await?;
    let (ready, fields) = (app.ready()?, Fields::parse(&body)?);
    let wanted = || Problem::field("tokens", "a list of ids is wanted");
    let ids = fields.ids("tokens", ready.about.n_vocab)?.ok_or_else(wanted)?;
    Ok(Json(json!({ "content": detokenized(ready, &ids) })).into_response())
}

fn detokenized(ready: &Ready, ids: &[u32]) -> String {
    let mut detokenizer = Detokenizer::new();
    let mut text: String =
        ids.iter().map(|&id| detokenizer.push(&ready.tokenizer, id).to_owned()).collect();
    text.push_str(detokenizer.finish());
    text
}

/// What the template makes of messages, whole.
async fn apply_template(State(app): Server, request: Request) -> Told {
    let body = body::read(request).await?;
    apart(move || {
        let (ready, fields) = (app.ready()?, Fields::parse(&body)?);
        let messages = Messages::read(&fields)?;
        let conversation = Conversation::of(messages.all());
        let text = ready.template()?.render(&conversation.marked(&ready.tokenizer))?;
        let tokens = encoded(&ready.tokenizer, &text)?.len();
        Ok(Json(json!({ "prompt": Conversation::shown(&text), "n_tokens": tokens }))
            .into_response())
    })
    .await
}
