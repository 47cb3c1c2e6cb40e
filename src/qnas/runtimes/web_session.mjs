// Runs one model in onnxruntime-web, in Node: a line of JSON asks, a line of JSON answers.
//
//   node web_session.mjs FOLDER    the node_modules that holds onnxruntime-web, "" for the global one
//
// What onnxruntime prints is kept apart: the answers alone are on stdout.
import { createRequire } from 'node:module';
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

const printed = [];
const write = fs.writeSync;
fs.writeSync = (fd, text, ...rest) => (fd > 2 ? write(fd, text, ...rest) : printed.push(String(text).trimEnd()));
for (const word of ['log', 'info', 'warn', 'error', 'debug']) console[word] = (text) => printed.push(String(text));

// By the name of the type: the array that holds its values.
const ARRAYS = {
    float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array,
    int16: Int16Array, uint32: Uint32Array, int32: Int32Array, uint64: BigUint64Array, int64: BigInt64Array,
    bool: Uint8Array,
};
let ort, session, written;
let feeds = {};

function open_package(folder) {
    const place = folder || join(dirname(dirname(process.execPath)), 'lib', 'node_modules');
    ort = createRequire(join(place, 'x.js'))(join(place, 'onnxruntime-web'));
    ort.env.logLevel = 'error';
}

const ANSWERS = {
    version: () => ({ node: process.versions.node, web: ort.env.versions.web }),
    open: async ({ model, threads, profile, packed }) => {
        ort.env.wasm.numThreads = threads;
        const extra = packed ? {} : { session: { disable_prepacking: '1' } };
        session = await ort.InferenceSession.create(fs.readFileSync(model), {
            executionProviders: ['wasm'], enableProfiling: profile, extra,
        });
        return { inputs: session.inputMetadata, threads: ort.env.wasm.numThreads };
    },
    feed: ({ inputs }) => {
        feeds = {};
        for (const { name, type, dims, data } of inputs) {
            const bytes = Uint8Array.from(Buffer.from(data, 'base64'));
            feeds[name] = new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
        }
        return {};
    },
    run: async () => {
        written = await session.run(feeds);
        return {};
    },
    outputs: () => ({
        outputs: session.outputNames.map((name) => {
            const { type, dims, data } = written[name];
            return { name, type, dims, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64') };
        }),
    }),
    profile: () => {
        printed.length = 0;
        session.endProfiling();
        return { profile: printed.join('\n') };
    },
};

try {
    open_package(process.argv[2]);
} catch (error) {
    process.stdout.write(JSON.stringify({ error: `cannot load onnxruntime-web: ${String(error.message).split('\n')[0]}` }) + '\n');
    process.exit(1);
}
for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        const { do: name, ...asked } = JSON.parse(line);
        answer = await ANSWERS[name](asked);
    } catch (error) {
        answer = { error: String(error.message ?? error) };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
}
process.exit(0);
