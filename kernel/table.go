package kernel

import "iter"

// table is one table of the kernel: how to list it and how to write to it.
type table[K, V comparable] struct {
	name string
	// list passes the entries that the selection asks for, and may pass more.
	list func(s selection, each func(K, V)) error
	// put writes changes and calls fail for each that did not succeed. An
	// entry that does not exist yet is created exclusively.
	put func(changes []change[K, V], fail func(i int, err error))
	// del deletes entries and calls fail for each that is still there.
	del func(entries []entry[K, V], fail func(i int, err error))
}

// selection says which entries to list.
type selection struct {
	devices []int
	// unmarked asks for the routes that flannel may have made, too.
	unmarked bool
}

type entry[K, V comparable] struct {
	key   K
	value V
}

// change makes an entry what it should be.
type change[K, V comparable] struct {
	key  K
	want V
	have V
	// exists says that the kernel has the key, with the value have.
	exists bool
}

// diff compares what is wanted with what is there. want must yield the same
// entries each time it is run, and no key twice.
func diff[K, V comparable](want iter.Seq2[K, V], have map[K]V) (put []change[K, V], stale []entry[K, V]) {
	found := 0
	for k, v := range want {
		old, exists := have[k]
		if exists {
			found++
		}
		if !exists || old != v {
			put = append(put, change[K, V]{key: k, want: v, have: old, exists: exists})
		}
	}
	if found == len(have) {
		return put, nil
	}
	wanted := make(map[K]struct{}, found)
	for k := range want {
		wanted[k] = struct{}{}
	}
	for k, v := range have {
		if _, ok := wanted[k]; !ok {
			stale = append(stale, entry[K, V]{k, v})
		}
	}
	return put, stale
}
