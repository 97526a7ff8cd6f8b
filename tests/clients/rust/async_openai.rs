// async-openai: everything it reads is typed, so an answer with a field amiss is an error.

use std::time::{SystemTime, UNIX_EPOCH};

use async_openai::config::{Config, OpenAIConfig};
use async_openai::error::OpenAIError;
use async_openai::types::chat::{ChatCompletionTools, CreateChatCompletionRequest, FinishReason};
use async_openai::types::responses::{CreateResponse, OutputItem, ResponseStreamEvent, Status};
use async_openai::Client;
use futures::StreamExt;
use serde_json::{from_str, from_value, json, Value};

fn base_url() -> String {
    format!("{}/v1", std::env::var("EMULATOR_URL").expect("EMULATOR_URL is set"))
}

fn client_with(headers: &[(&'static str, &str)]) -> Client<OpenAIConfig> {
    let mut config = OpenAIConfig::new().with_api_base(base_url()).with_api_key("dummy-key");
    for (name, value) in headers {
        config = config.with_header(*name, value.to_string()).expect("a header");
    }
    Client::with_config(config)
}

fn client() -> Client<OpenAIConfig> {
    client_with(&[])
}

fn forecast_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "degrees": {"type": "number"},
            "days": {"type": "array", "items": {"type": "integer"}}
        },
        "required": ["city", "degrees", "days"],
        "additionalProperties": false
    })
}

fn is_forecast(text: &str) {
    let value: Value = from_str(text).expect("JSON");
    assert!(value["city"].is_string() && value["degrees"].is_number(), "{value}");
    assert!(value["days"].as_array().expect("days").iter().all(Value::is_i64), "{value}");
}

fn city_schema() -> Value {
    json!({
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": false
    })
}

fn merged(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        base[name] = value.clone();
    }
    base
}

fn question(more: Value) -> CreateChatCompletionRequest {
    let base = json!({
        "model": "gpt-4o", "seed": 1, "messages": [{"role": "user", "content": "What is the weather?"}]
    });
    from_value(merged(base, more)).expect("a request")
}

fn asked(more: Value) -> CreateResponse {
    let base = json!({"model": "gpt-4o", "input": "What is the weather?"});
    from_value(merged(base, more)).expect("a request")
}

/// Reads a chat to its end, or to its error.
async fn streamed(client: &Client<OpenAIConfig>) -> (Vec<String>, Option<OpenAIError>) {
    let mut stream = client.chat().create_stream(question(json!({}))).await.expect("a stream");
    let mut deltas = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => deltas.extend(
                chunk.choices.into_iter().filter_map(|choice| choice.delta.content).filter(|text| !text.is_empty()),
            ),
            Err(error) => return (deltas, Some(error)),
        }
    }
    (deltas, None)
}

#[tokio::test]
async fn chat_is_the_same_whole_and_streamed() {
    let whole = client().chat().create(question(json!({}))).await.unwrap();
    let (deltas, error) = streamed(&client()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(deltas.len(), 20);
    assert_eq!(Some(deltas.concat()), whole.choices[0].message.content);
    assert_eq!(whole.usage.unwrap().completion_tokens, 20);
}

#[tokio::test]
async fn chat_calls_a_tool_and_answers() {
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": city_schema()}}]);
    let _typed: Vec<ChatCompletionTools> = from_value(tools.clone()).unwrap();
    let first = client().chat().create(question(json!({"tools": tools, "tool_choice": "required"}))).await.unwrap();
    assert_eq!(first.choices[0].finish_reason, Some(FinishReason::ToolCalls));
    let calls = serde_json::to_value(&first.choices[0].message.tool_calls).unwrap();
    let arguments: Value = from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());
    let messages = json!([
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "sunny"}
    ]);
    let second = client().chat().create(question(json!({"tools": tools, "messages": messages}))).await.unwrap();
    assert!(second.choices[0].message.content.is_some());
}

#[tokio::test]
async fn chat_follows_a_schema() {
    let format = json!({"type": "json_schema", "json_schema": {
        "name": "forecast", "strict": true, "schema": forecast_schema()
    }});
    let answer = client().chat().create(question(json!({"response_format": format}))).await.unwrap();
    is_forecast(answer.choices[0].message.content.as_ref().unwrap());
}

#[tokio::test]
async fn legacy_completions_answer() {
    let request = from_value(json!({"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"})).unwrap();
    let answer = client().completions().create(request).await.unwrap();
    assert!(!answer.choices[0].text.is_empty());
}

#[tokio::test]
async fn responses_answer() {
    let answer = client().responses().create(asked(json!({}))).await.unwrap();
    assert_eq!(answer.status, Status::Completed);
    assert!(answer.output_text().is_some_and(|text| !text.is_empty()));
}

#[tokio::test]
async fn responses_stream() {
    let mut stream = client().responses().create_stream(asked(json!({}))).await.unwrap();
    let (mut text, mut last) = (String::new(), None);
    while let Some(event) = stream.next().await {
        match event.expect("a known event") {
            ResponseStreamEvent::ResponseOutputTextDelta(event) => text.push_str(&event.delta),
            ResponseStreamEvent::ResponseCompleted(event) => last = event.response.output_text(),
            _ => {}
        }
    }
    assert!(!text.is_empty());
    assert_eq!(last, Some(text));
}

#[tokio::test]
async fn responses_call_a_tool_and_answer() {
    let tools = json!([{"type": "function", "name": "weather", "strict": true, "parameters": city_schema()}]);
    let request = asked(json!({"tools": tools, "tool_choice": "required"}));
    let first = client().responses().create(request).await.unwrap();
    let OutputItem::FunctionCall(call) = &first.output[0] else { panic!("{:?}", first.output) };
    let output = json!([{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]);
    let request = asked(json!({"tools": tools, "previous_response_id": first.id, "input": output}));
    assert!(client().responses().create(request).await.unwrap().output_text().is_some());
}

#[tokio::test]
async fn responses_follow_a_schema() {
    let format = json!({"format": {
        "type": "json_schema", "name": "forecast", "strict": true, "schema": forecast_schema()
    }});
    let answer = client().responses().create(asked(json!({"text": format}))).await.unwrap();
    is_forecast(&answer.output_text().unwrap());
}

#[tokio::test]
async fn embeddings() {
    let request = from_value(json!({"model": "text-embedding-3-small", "input": ["a cat", "a dog"]})).unwrap();
    let answer = client().embeddings().create(request).await.unwrap();
    assert_eq!(answer.data.iter().map(|one| one.embedding.len()).collect::<Vec<_>>(), [1536, 1536]);
}

#[tokio::test]
async fn a_refusal_is_an_error() {
    let error = client().chat().create(question(json!({"temperature": 7.0}))).await.unwrap_err();
    let OpenAIError::ApiError(refused) = error else { panic!("{error:?}") };
    assert_eq!(refused.status_code.as_u16(), 400);
    assert_eq!(refused.api_error.param.as_deref(), Some("temperature"));
}

#[tokio::test]
async fn tries_again() {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let key = format!("async-openai {}", started.as_nanos());
    let headers = [
        ("x-fault-status", "503"), ("x-fault-attempts", "1"), ("x-fault-retry-after-ms", "10"), ("x-fault-key", &key),
    ];
    client_with(&headers).chat().create(question(json!({}))).await.unwrap();
}

const MID_STREAM: [(&str, &str); 2] = [("x-fault-kind", "error"), ("x-fault-after-tokens", "3")];

#[tokio::test]
async fn chat_fails_in_mid_stream() {
    let (deltas, error) = streamed(&client_with(&MID_STREAM)).await;
    assert_eq!(deltas.len(), 3);
    assert!(error.is_some());
}

#[tokio::test]
async fn responses_fail_in_mid_stream() {
    let mut stream = client_with(&MID_STREAM).responses().create_stream(asked(json!({}))).await.unwrap();
    let mut failed = false;
    while let Some(event) = stream.next().await {
        failed |= matches!(event, Err(_) | Ok(ResponseStreamEvent::ResponseFailed(_)));
    }
    assert!(failed);
}

#[tokio::test]
async fn reads_past_comments() {
    let fields = [("x-ttft-ms", "300"), ("x-keepalive-ms", "100")];
    let client = client_with(&fields);
    let (deltas, error) = streamed(&client).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(deltas.len(), 20);
    let body = merged(serde_json::to_value(question(json!({}))).unwrap(), json!({"stream": true}));
    let raw = reqwest::Client::new().post(client.config().url("/chat/completions"));
    let answer = raw.headers(client.config().headers()).header("content-type", "application/json").body(body.to_string());
    assert!(answer.send().await.unwrap().text().await.unwrap().starts_with(':'));
}

#[tokio::test]
async fn compacts() {
    // Of the assistant alone: what a user said is kept, but this client's messages of an output
    // have no role but the assistant's.
    let input = json!([{"role": "assistant", "content": "hi"}]);
    let request = from_value(json!({"model": "gpt-4o", "input": input})).unwrap();
    let answer = client().responses().compact(request).await.unwrap();
    assert_eq!(answer.object, "response.compaction");
}

#[tokio::test]
async fn moderates() {
    let request = from_value(json!({"input": "hi"})).unwrap();
    let answer = client().moderations().create(request).await.unwrap();
    assert!(!answer.results[0].flagged);
}
