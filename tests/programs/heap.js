// SPDX-License-Identifier: MIT
// heap.js N FILE: a heap of about 700 N bytes, and the places where V8 depends on signals and on
// reservations of its own.  Prints checksums, which depend on N alone.
'use strict';
const fs = require('fs');
const zlib = require('zlib');
const crypto = require('crypto');
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
const { execFileSync } = require('child_process');

function random(seed) {
	let s = (seed * 2654435761 + 1) >>> 0;
	return (n) => {
		s ^= s << 13; s >>>= 0;
		s ^= s >>> 17;
		s ^= s << 5; s >>>= 0;
		return s % n;
	};
}

function graph(n, seed) {
	const rnd = random(seed), all = [], byName = new Map();
	let sum = 0;
	for (let i = 0; i < n; i++) {
		const o = { id: i, name: `node ${rnd(1e9)}`, values: [rnd(1000), i, -i], next: null };
		all.push(o);
		byName.set(o.name, o);
	}
	for (let i = 0; i < n; i++) {
		const o = all[rnd(n)];
		o.values.push(i);
		o.next = all[rnd(n)];
		if (i % 5 === 0)
			byName.delete(all[rnd(n)].name);
		if (i % 3 === 0)
			all[rnd(n)] = { id: n + i, name: 'new' + i, values: [i], next: o };
	}
	for (const o of all)
		sum = (sum * 31 + o.id + o.name.length + o.values.reduce((a, b) => a + b)) % 2147483647;
	return sum + byName.size;
}

const digest = (data) => crypto.createHash('md5').update(data).digest('hex').slice(0, 16);

// Typed arrays lie outside the heap; compression runs in the pool's threads.
function buffers(n, path) {
	const data = new Uint32Array(n * 8), rnd = random(7);
	for (let i = 0; i < data.length; i++)
		data[i] = rnd(1 << 20);
	fs.writeFileSync(path, data);
	const read = fs.readFileSync(path);
	console.log('read', digest(read), digest(Buffer.from(data.buffer)));
	return new Promise((done) => zlib.deflate(read, (err, packed) => {
		if (err)
			throw err;
		zlib.inflate(packed, (err2, whole) => {
			console.log('packed', err2, whole.equals(read));
			done();
		});
	}));
}

// A module of one memory and one function load(address).  V8 reserves gigabytes around the memory and turns a
// SIGSEGV out there into an exception.
function wasm(pages) {
	const leb = (x) => x < 128 ? [x] : [x & 127 | 128, ...leb(x >> 7)];
	const memory = [1, 0, ...leb(pages)], code = [0, 0x20, 0, 0x28, 2, 0, 0x0b];
	const module = Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
		1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f,
		3, 2, 1, 0,
		5, memory.length, ...memory,
		7, 9, 2, 1, 0x6d, 2, 0, 1, 0x66, 0, 0,
		10, code.length + 2, 1, code.length, ...code]);
	const { m, f } = new WebAssembly.Instance(new WebAssembly.Module(module)).exports;
	const view = new Uint32Array(m.buffer);
	let sum = 0, traps = 0;
	for (let i = 0; i < view.length; i++)
		view[i] = i * 2654435761;
	for (let i = 0; i < view.length; i += 97)
		sum = (sum + f(i * 4)) % 4294967296;
	for (let i = 0; i < 1000; i++) {
		try {
			f(view.length * 4 + i * 1000000);
		} catch (e) {
			traps += e instanceof WebAssembly.RuntimeError;
		}
	}
	m.grow(16);
	return [sum, traps, f(view.byteLength), new Uint32Array(m.buffer)[1000]];
}

function worker(n, seed, shared) {
	return new Promise((done, failed) => {
		const w = new Worker(__filename, { workerData: { n, seed, shared },
			resourceLimits: { maxOldGenerationSizeMb: 2000 } });
		w.on('message', done);
		w.on('error', failed);
	});
}

async function main() {
	const n = +process.argv[2], path = process.argv[3];
	const shared = new SharedArrayBuffer(n * 8);
	console.log('graph', graph(n, 1));
	await buffers(n, path);
	console.log('wasm', ...wasm(Math.ceil(n / 4000)));
	console.log('child', execFileSync('echo', ['from a child']).toString().trim());
	console.log('workers', ...await Promise.all([1, 2, 3].map((i) => worker(n / 4, i, shared))));
	console.log('shared', new Int32Array(shared).reduce((a, b) => (a + b) | 0));
	fs.unlinkSync(path);
}

if (isMainThread) {
	main();
} else {
	const { n, seed, shared } = workerData, a = new Int32Array(shared);
	for (let i = 0; i < a.length; i++)
		Atomics.add(a, i, i * seed);
	parentPort.postMessage(graph(n, seed));
}
