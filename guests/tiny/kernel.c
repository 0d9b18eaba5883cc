/* A small kernel for tests: everything in it is done in another way than the large ones do it.
 *
 * Two rings, system calls by `int 0x40` or a call gate, user segments with a base of their own for each process, page tables of two
 * levels (the kernel in pages of 4 MiB), processes that run until they give way. It is loaded by the multiboot protocol;
 * programs are modules, and the command line says what `init` starts.
 */
#include "calls.h"
#include "kernel.h"

struct driver *drivers;
struct module modules[64];
uint32_t module_count;
const char *command_line;

/* Memory of the calling process, reached by its own segment. */

static uint8_t get_byte(uint32_t at)
{
    uint8_t byte;
    __asm__ volatile("movb %%fs:(%1), %0" : "=q"(byte) : "r"(at));
    return byte;
}

static void put_byte(uint32_t at, uint8_t byte)
{
    __asm__ volatile("movb %0, %%fs:(%1)" : : "q"(byte), "r"(at) : "memory");
}

static void put_word(uint32_t at, uint32_t word)
{
    __asm__ volatile("movl %0, %%fs:(%1)" : : "r"(word), "r"(at) : "memory");
}

static int is_user(uint32_t at, uint32_t size)
{
    return at < USER_SIZE && size <= USER_SIZE - at;
}

static int32_t put_text(uint32_t at, uint32_t size, const char *text)
{
    if (!is_user(at, size))
        return BAD_ADDRESS;
    for (uint32_t i = 0; i < size; i++) {
        put_byte(at + i, (uint8_t)text[i]);
        if (!text[i])
            return (int32_t)i;
    }
    return TOO_SMALL;
}

/* A copy of the caller's text; none of an empty one. */
static char *get_text(uint32_t at)
{
    char text[128];
    uint32_t i = 0;
    while (i + 1 < sizeof text && is_user(at + i, 1) && (text[i] = (char)get_byte(at + i)))
        i++;
    text[i] = 0;
    return i ? copy_text(text) : 0;
}

/* System calls. */

static int32_t list_processes(uint32_t at, uint32_t most)
{
    int32_t count = 0;
    if (most > USER_SIZE / 4 || !is_user(at, 4 * most))
        return BAD_ADDRESS;
    for (struct process *it = processes; it; it = it->next) {
        if ((uint32_t)count == most)
            return TOO_SMALL;
        put_word(at + 4 * (uint32_t)count++, it->pid);
    }
    return count;
}

static int32_t process_path(uint32_t pid, uint32_t at, uint32_t size)
{
    const struct process *process = find(pid);
    if (!process)
        return NO_PROCESS;
    return process->path ? put_text(at, size, process->path) : NO_PROGRAM;
}

static int32_t list_drivers(uint32_t at, uint32_t most)
{
    int32_t count = 0;
    if (most > USER_SIZE / 4 || !is_user(at, 4 * most))
        return BAD_ADDRESS;
    for (struct driver *it = drivers; it; it = it->next) {
        if ((uint32_t)count == most)
            return TOO_SMALL;
        put_word(at + 4 * (uint32_t)count++, (uint32_t)it->image);
    }
    return count;
}

static struct driver **find_driver(uint32_t image)
{
    struct driver **link = &drivers;
    while (*link && (uint32_t)(*link)->image != image)
        link = &(*link)->next;
    return link;
}

static int32_t driver_name(uint32_t image, uint32_t at, uint32_t size)
{
    const struct driver *driver = *find_driver(image);
    return driver ? put_text(at, size, driver->name) : NO_DRIVER;
}

static int32_t load_driver(char *name, uint32_t size)
{
    if (!name)
        return BAD_ADDRESS;
    struct driver *driver = allocate(sizeof *driver);
    *driver = (struct driver){drivers, name, allocate(size), size};
    drivers = driver;
    return (int32_t)driver->image;
}

static int32_t unload_driver(uint32_t image)
{
    struct driver **link = find_driver(image), *driver = *link;
    if (!driver)
        return NO_DRIVER;
    *link = driver->next;
    release(driver->image);
    release(driver->name);
    release(driver);
    return 0;
}

static int32_t get_time(uint32_t at)
{
    if (!is_user(at, sizeof now))
        return BAD_ADDRESS;
    put_word(at, now.seconds);
    put_word(at + 4, now.nanoseconds);
    return 0;
}

static int32_t write(uint32_t at)
{
    char *text = get_text(at);
    print("%s", text ? text : "");
    release(text);
    return 0;
}

static int32_t start_process(uint32_t description)
{
    uint32_t words[4];
    if (!is_user(description, sizeof words))
        return BAD_ADDRESS;
    for (uint32_t i = 0; i < 16; i++)
        ((uint8_t *)words)[i] = get_byte(description + i);
    char *program = get_text(words[0]), *name = get_text(words[1]), *path = get_text(words[2]);
    int32_t pid = program && name ? spawn(program, name, path, words[3]) : BAD_ADDRESS;
    release(program);
    return pid;
}

void system_call(struct frame *frame)
{
    uint32_t a = frame->ebx, b = frame->ecx, c = frame->edx;
    int32_t result = 0;
    switch (frame->eax) {
    case CALL_EXIT:
        leave_process();
    case CALL_YIELD:
        yield();
        break;
    case CALL_WAIT:
        current->state = WAITING;
        yield();
        break;
    case CALL_GETPID:
        result = (int32_t)whoami()->pid;
        break;
    case CALL_PROCESSES:
        result = list_processes(a, b);
        break;
    case CALL_PATH:
        result = process_path(a, b, c);
        break;
    case CALL_DRIVERS:
        result = list_drivers(a, b);
        break;
    case CALL_DRIVER_NAME:
        result = driver_name(a, b, c);
        break;
    case CALL_TIME:
        result = get_time(a);
        break;
    case CALL_WRITE:
        result = write(a);
        break;
    case CALL_SPAWN:
        result = start_process(a);
        break;
    case CALL_LOAD:
        result = load_driver(get_text(a), b);
        break;
    case CALL_UNLOAD:
        result = unload_driver(a);
        break;
    case CALL_COMMAND_LINE:
        result = put_text(a, b, command_line);
        break;
    case CALL_TRUTH:
        print_truth();
        break;
    case CALL_RESET:
        reset();
    case CALL_CHIP_SECONDS:
        result = (int32_t)chip_seconds();
        break;
    default:
        result = NO_CALL;
    }
    frame->eax = (uint32_t)result;
}

void fault(const uint32_t *stack)
{
    print("exception %u, then %x %x %x %x %x\n", stack[0], stack[1], stack[2], stack[3], stack[4], stack[5]);
    reset();
}

struct multiboot {
    uint32_t flags, memory[2], device, command_line, module_count, modules;
};

struct multiboot_module {
    uint32_t start, end, text, unused;
};

/* A module is named by the last part of the first word of its text. */
static char *module_name(const char *text)
{
    char name[32];
    uint32_t length = 0;
    for (; *text && *text != ' '; text++) {
        if (*text == '/')
            length = 0;
        else if (length + 1 < sizeof name)
            name[length++] = *text;
    }
    name[length] = 0;
    return copy_text(name);
}

void kernel_main(uint32_t description)
{
    extern uint8_t kernel_end[];
    const struct multiboot *boot = physical(description);
    const struct multiboot_module *module = physical(boot->modules);
    uint32_t used = (uint32_t)kernel_end - HIGH;
    start_console();
    command_line = copy_text(physical(boot->command_line));
    set_tables(has_word(command_line, "local"));
    if (has_word(command_line, "apic"))
        use_apic();
    for (; module_count < boot->module_count && module_count < 64; module++, module_count++) {
        modules[module_count] =
            (struct module){module_name(physical(module->text)), physical(module->start), module->end - module->start};
        if (module->end > used)
            used = module->end;
    }
    pages_from(used);
    start_clock();
    if (spawn("init", copy_text("init"), copy_text("/boot/init"), 0) < 0) {
        print("there is no program init\n");
        reset();
    }
    for (;;) {
        yield();
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    }
}
