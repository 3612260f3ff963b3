/* SPDX-License-Identifier: MIT */
/*
 * Heap N FILE: a heap of about 300 N bytes, walked, changed and collected by several threads, and
 * the places where a Java machine depends on signals and on the state of its memory.  Prints
 * checksums, which depend on N alone.
 */
import java.io.File;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.stream.LongStream;

public class Heap {
	static final class Random {
		private long state;

		Random(long seed) {
			state = seed * 0x9e3779b97f4a7c15L + 1;
		}

		int below(int n) {
			state = state * 6364136223846793005L + 1442695040888963407L;
			return (int) ((state >>> 33) % n);
		}
	}

	static final class Node {
		long key;
		String name;
		long[] values;
		Node next;

		Node(long key, Random r) {
			this.key = key;
			name = "node " + key + " " + r.below(1000000);
			values = new long[] { key, r.below(1000), -key };
		}
	}

	/* Objects that point to each other, most of them old, some replaced all the time. */
	static long graph(int n, long seed) {
		Random r = new Random(seed);
		Node[] node = new Node[n];
		HashMap<String, Node> byName = new HashMap<>();
		long sum = 0;

		for (int i = 0; i < n; i++) {
			node[i] = new Node(i, r);
			byName.put(node[i].name, node[i]);
		}
		for (int i = 0; i < n; i++) {
			Node o = node[r.below(n)];

			o.values = Arrays.copyOf(o.values, o.values.length + 1);
			o.values[o.values.length - 1] = i;
			o.next = node[r.below(n)];
			if (i % 5 == 0)
				byName.remove(node[r.below(n)].name);
			if (i % 3 == 0)
				node[r.below(n)] = new Node(n + i, r);
		}
		for (Node o : node)
			sum = sum * 31 + o.key + o.name.hashCode() + LongStream.of(o.values).sum();
		return sum + byName.size();
	}

	/* The machine turns SIGSEGV at address zero into this exception. */
	static long nulls(int n) {
		Random r = new Random(3);
		Node[] node = new Node[n];
		long sum = 0, none = 0;

		for (int i = 0; i < n; i += 1 + r.below(2))
			node[i] = new Node(i, r);
		for (int i = 0; i < n; i++) {
			try {
				sum += node[i].values[1];
			} catch (NullPointerException e) {
				none++;
			}
		}
		return sum * 31 + none;
	}

	static int depth;

	static void recurse() {
		depth++;
		recurse();
	}

	/* Guard pages of the stack. */
	static boolean overflow() {
		try {
			recurse();
			return false;
		} catch (StackOverflowError e) {
			return depth > 1000;
		}
	}

	static long threads(int n) throws Exception {
		long[] sum = new long[4];
		List<Thread> all = new ArrayList<>();
		long total = 0;

		for (int t = 0; t < sum.length; t++) {
			final int id = t;

			all.add(new Thread(() -> sum[id] = graph(n / 4, id + 10)));
			all.get(t).start();
		}
		for (Thread t : all)
			t.join();
		for (long s : sum)
			total = total * 31 + s;
		return total;
	}

	/* Buffers outside the heap, to a file and back. */
	static long buffers(int n, String path) throws Exception {
		ByteBuffer out = ByteBuffer.allocateDirect(n * 16), in = ByteBuffer.allocateDirect(n * 16);
		Random r = new Random(5);
		long sum = 0;

		while (out.hasRemaining())
			out.putLong(r.below(1 << 30));
		out.flip();
		try (RandomAccessFile f = new RandomAccessFile(path, "rw")) {
			while (out.hasRemaining())
				f.getChannel().write(out);
			f.getChannel().position(0);
			while (in.hasRemaining() && f.getChannel().read(in) > 0)
				;
		}
		in.flip();
		while (in.hasRemaining())
			sum = sum * 31 + in.getLong();
		return sum;
	}

	/* The machine turns this SIGBUS, which is a real one, into an error, at its next chance. */
	static boolean truncated(String path) throws Exception {
		try (RandomAccessFile f = new RandomAccessFile(path, "rw")) {
			f.setLength(64 * 4096);
			MappedByteBuffer map = f.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 64 * 4096);

			map.put(40 * 4096, (byte) 1);
			f.setLength(4096);
			map.get(40 * 4096);
			Thread.sleep(1);
		} catch (InternalError e) {
			return true;
		}
		return false;
	}

	static String child() throws Exception {
		Process p = new ProcessBuilder("echo", "from a child").start();
		String said = new String(p.getInputStream().readAllBytes()).trim();

		return said + " " + p.waitFor();
	}

	public static void main(String[] arg) throws Exception {
		int n = Integer.parseInt(arg[0]);
		int[] large = new int[n * 4];

		System.out.println("graph " + graph(n, 1));
		System.out.println("nulls " + nulls(n));
		System.out.println("overflow " + overflow());
		System.out.println("child " + child());
		Arrays.setAll(large, i -> (int) (i * 2654435761L >>> 5));
		Arrays.parallelSort(large);
		System.out.println("sorted " + Arrays.hashCode(large));
		System.out.println("buffers " + buffers(n, arg[1]));
		System.out.println("truncated " + truncated(arg[1]));
		System.gc();
		System.out.println("threads " + threads(n));
		System.out.println("still sorted " + Arrays.hashCode(large));
		new File(arg[1]).delete();
	}
}
