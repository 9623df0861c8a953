// Asks a coordinator for an analysis, watches it, and prints each layer's alpha. Nothing is generated: the .proto files
// are read when the program starts.
//
//     npm ci
//     node client.js 127.0.0.1:7600 /models/model.safetensors     # PROTO=DIR: where proto/ is, if not where it is here
//
// Ends with 0, or with 1 and the reason on stderr. This is for a coordinator on loopback; elsewhere the credentials are
// grpc.credentials.createSsl(), and every call has the metadata "authorization: Bearer TOKEN".
'use strict';

const crypto = require('node:crypto');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const TRIES = 5; // of a call that finds nobody
const WATCH_TRIES = 30; // of a watch without a message between: as long as a coordinator takes to start again
const WATCH_SECONDS = 60; // after which a watch is begun anew, so that a dead connection is noticed
const ENDED = ['ANALYSIS_STATE_SUCCEEDED', 'ANALYSIS_STATE_FAILED', 'ANALYSIS_STATE_CANCELLED'];

const proto = process.env.PROTO || path.join(__dirname, '../../../proto');
// Whole 64-bit numbers arrive as strings, so that none loses digits; optional fields that are absent stay undefined.
const definitions = loader.loadSync('spectrald/v1/analysis.proto', {
  includeDirs: [proto], keepCase: true, longs: String, enums: String, defaults: false,
});
const { AnalysisService } = grpc.loadPackageDefinition(definitions).spectrald.v1;

const within = (seconds) => ({ deadline: Date.now() + 1000 * seconds });

// 0.1 to 1 s, with jitter so that many clients do not come back together.
const pause = (attempt) => sleep(Math.min(1000, 100 * 2 ** attempt) * (0.5 + Math.random() / 2));

// The call's answer; tried again while nobody is there. Every call of the API may be repeated.
async function retried(call) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || attempt === TRIES - 1) throw error;
      await pause(attempt);
    }
  }
}

// The id of the new analysis. Thanks to request_id, a request that is sent twice makes one analysis.
async function create(client, model) {
  const request = { model, request_id: crypto.randomUUID() };
  const call = () => new Promise((resolve, reject) => {
    client.createAnalysis(request, within(30), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
  return (await retried(call)).analysis.id;
}

// Follows the analysis to its end and gives it as it then stands. A watch that breaks off is resumed where it was.
async function watch(client, id) {
  let sequence = '0';
  for (let silent = 0; ; silent++) {
    try {
      const stream = client.watchAnalysis({ id, after_sequence: sequence }, within(WATCH_SECONDS));
      for await (const { sequence: last, analysis, layers: events = [] } of stream) {
        sequence = last ?? sequence;
        silent = 0;
        for (const { name } of events) console.log(`row: ${name}`);
        const { done = 0, layers = 0 } = analysis.progress ?? {};
        console.log(`${analysis.state}: ${done}/${layers} layers`);
        if (ENDED.includes(analysis.state)) return analysis;
      }
    } catch (error) {
      const again = [grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED].includes(error.code);
      if (!again || silent === WATCH_TRIES) throw error;
    }
    await pause(silent);
  }
}

// All rows in the order of the model. A stream that breaks off is read again from its start.
const rows = (client, id) => retried(async () => {
  const layers = [];
  for await (const message of client.streamLayerResults({ id }, within(300))) layers.push(...(message.layers ?? []));
  return layers;
});

// What google.rpc.ErrorInfo says, from the google.rpc.Status in the trailers.
function errorInfo(error) {
  const { root } = protobuf.parse(`syntax = "proto3";
    message Any { string type_url = 1; bytes value = 2; }
    message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
    message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`, { keepCase: true });
  for (const encoded of error.metadata?.get('grpc-status-details-bin') ?? []) {
    for (const detail of root.lookupType('Status').decode(encoded).details) {
      if (detail.type_url !== 'type.googleapis.com/google.rpc.ErrorInfo') continue;
      const info = root.lookupType('ErrorInfo').decode(detail.value);
      const places = Object.entries(info.metadata).map(([key, value]) => `${key}=${value}`).sort();
      return [`reason ${info.reason}`, `domain ${info.domain}`, ...places].join(', ');
    }
  }
  return 'no details';
}

async function main(addr, model) {
  const client = new AnalysisService(addr, grpc.credentials.createInsecure());
  try {
    const id = await create(client, model);
    console.log(`analysis ${id}`);
    const { state, failure } = await watch(client, id);
    if (state !== 'ANALYSIS_STATE_SUCCEEDED') {
      throw new Error(`the analysis ended as ${state}: ${failure?.message} (reason ${failure?.reason})`);
    }
    // A field that is absent does not apply, or could not be computed.
    const analysed = (await rows(client, id)).filter((layer) => layer.alpha !== undefined);
    for (const { name, alpha } of analysed) console.log(`${name} ${alpha.toFixed(6)}`);
    const mean = analysed.reduce((sum, layer) => sum + layer.alpha, 0) / analysed.length;
    console.log(`mean alpha ${mean.toFixed(6)} over ${analysed.length} layers`);
  } finally {
    client.close();
  }
}

if (process.argv.length !== 4) {
  console.error('usage: node client.js ADDR MODEL');
  process.exitCode = 2;
} else {
  main(process.argv[2], process.argv[3]).catch((error) => {
    const word = grpc.status[error.code];
    console.error(`error: ${word ? `${word}: ${error.details} (${errorInfo(error)})` : error.message}`);
    process.exitCode = 1;
  });
}
