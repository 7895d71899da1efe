//! Pipelines in Chromium, compiled where nothing waits for them.
//!
//! What `createComputePipeline` asks for is compiled in the queue of the browser's GPU process: uploads wait for it, and
//! so does whatever the browser draws. `createComputePipelineAsync` compiles beside that queue. wgpu 30 knows the former
//! alone; but Chromium finds what it holds compiled, by its content, whichever way it is asked. Other browsers would
//! compile it twice.
use super::{Access, KernelSource};
use js_sys::{Array, JSON, Promise, Reflect};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// A `GPUDevice`.
    type Device;
    #[wasm_bindgen(method, js_name = createBindGroupLayout)]
    fn create_bind_group_layout(this: &Device, descriptor: &JsValue) -> JsValue;
    #[wasm_bindgen(method, js_name = createPipelineLayout)]
    fn create_pipeline_layout(this: &Device, descriptor: &JsValue) -> JsValue;
    #[wasm_bindgen(method, js_name = createShaderModule)]
    fn create_shader_module(this: &Device, descriptor: &JsValue) -> JsValue;
    #[wasm_bindgen(method, js_name = createComputePipelineAsync)]
    fn create_compute_pipeline_async(this: &Device, descriptor: &JsValue) -> Promise;
}

/// Compiles what `super::kernel` is about to ask for. To be held until it has: the browser forgets what nobody holds.
/// Nothing, where it would not be found again or is refused; then the other way says why.
pub(super) async fn compile(
    device: &wgpu::Device,
    source: &KernelSource,
    overrides: &[(&str, f64)],
) -> Option<JsValue> {
    let browsers = device.as_webgpu().filter(|_| in_chromium())?;
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let asked = ask(browsers.unchecked_ref(), source, overrides);
    scope.pop().await;
    JsFuture::from(asked?).await.ok()
}

fn ask(device: &Device, source: &KernelSource, overrides: &[(&str, f64)]) -> Option<Promise> {
    let with = |object: JsValue, key: &str, value: &JsValue| {
        Reflect::set(&object, &key.into(), value).ok().map(|_| object)
    };
    let group = device.create_bind_group_layout(&object(json!({ "entries": entries(source) }))?);
    let groups = with(object(json!({}))?, "bindGroupLayouts", &Array::of1(&group))?;
    let module = device.create_shader_module(&object(json!({ "code": source.for_browsers() }))?);
    let constants: serde_json::Map<String, Value> =
        overrides.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect();
    let stage = object(json!({ "entryPoint": "main", "constants": constants }))?;
    let stage = with(stage, "module", &module)?;
    let descriptor = with(object(json!({ "label": source.name }))?, "compute", &stage)?;
    let layout = device.create_pipeline_layout(&groups);
    Some(device.create_compute_pipeline_async(&with(descriptor, "layout", &layout)?))
}

/// As `layout_entries` has them, in the browser's words.
fn entries(source: &KernelSource) -> Vec<Value> {
    let entry = |binding: usize, kind: &str, least: u64| {
        json!({
            "binding": binding,
            "visibility": wgpu::ShaderStages::COMPUTE.bits(),
            "buffer": { "type": kind, "minBindingSize": least },
        })
    };
    let kind = |access: &Access| match access {
        Access::Read => "read-only-storage",
        Access::Write => "storage",
    };
    std::iter::once(entry(0, "read-only-storage", source.params_size))
        .chain(source.bindings.iter().zip(1..).map(|(access, at)| entry(at, kind(access), 0)))
        .collect()
}

fn object(value: Value) -> Option<JsValue> {
    JSON::parse(&value.to_string()).ok()
}

fn in_chromium() -> bool {
    let get = |of: &JsValue, key: &str| Reflect::get(of, &key.into()).unwrap_or_default();
    let navigator = get(&js_sys::global(), "navigator");
    let brands = get(&get(&navigator, "userAgentData"), "brands");
    Array::is_array(&brands)
        && Array::from(&brands).iter().any(|brand| get(&brand, "brand") == "Chromium")
}
