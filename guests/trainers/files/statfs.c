/* The file system that a path is on: statfs PATH. */
#include "linux-calls.h"
#include "virtuoso.h"

static char path[4096];
static int32_t rc;
static uint64_t type, block_size, blocks, blocks_free, blocks_available, files, files_free, name_length, fragment_size, flags;
static uint32_t id[2];
static struct file_system found;

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/proc"));
    touch(&found, sizeof found);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("type:u64", &type);
    virtuoso_output("block_size:u64", &block_size);
    virtuoso_output("blocks:u64", &blocks);
    virtuoso_output("blocks_free:u64", &blocks_free);
    virtuoso_output("blocks_available:u64", &blocks_available);
    virtuoso_output("files:u64", &files);
    virtuoso_output("files_free:u64", &files_free);
    virtuoso_output("name_length:u64", &name_length);
    virtuoso_output("fragment_size:u64", &fragment_size);
    virtuoso_output("flags:u64", &flags);
    virtuoso_output("id:u32[2]", id);
    virtuoso_begin("statfs");
    rc = file_system(path, &found);
    if (rc == 0) {
        type = found.type;
        block_size = found.block_size;
        blocks = found.blocks;
        blocks_free = found.free;
        blocks_available = found.available;
        files = found.files;
        files_free = found.files_free;
        name_length = found.name_length;
        fragment_size = found.fragment_size;
        flags = found.flags;
        id[0] = found.id[0];
        id[1] = found.id[1];
    }
    virtuoso_end();
    return 0;
}
